"""All measurements: a table with the goals beside the figures, and build/bench/figures.json.

    python bench [--only NAME[,NAME…]] [--all] [--rounds 5] [--messages 20000] [--output FILE]

Every figure is a median of rounds in which ours and theirs took turns. The long ones run with --all, or by name.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from rich.console import Console

import composing
import draining
import fetching
import figures
import history
import million
import nodes
import postfix
import rival
import sending
import transport
from figures import Figure, Scale
from syncs import BUILD

MEASUREMENTS: dict[str, Callable[[Scale], Iterator[Figure]]] = {
    "sending": sending.measure,
    "slow": sending.measure_slow,
    "transport": transport.measure,
    "composing": composing.measure,
    "postfix": postfix.measure,
    "fetching": fetching.measure,
    "draining": draining.measure,
    "nodes": nodes.measure,
    "million": million.measure,
    "history": history.measure,
    "rival": rival.measure,
}
LONG = {"million", "history", "rival"}


def main() -> None:
    """Measure what the command line asks for."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and so take along what runs
    asked = _parser().parse_args()
    names = asked.only or [name for name in MEASUREMENTS if asked.all or name not in LONG]
    scale = Scale(rounds=asked.rounds, messages=asked.messages)
    terminal = Console(stderr=True, width=None if sys.stderr.isatty() else 140)
    seen: list[Figure] = []
    result: dict[str, Any] = {
        "machine": _machine(),
        "rounds": scale.rounds,
        "messages": scale.messages,
        "figures": {},
    }
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        terminal.log(f"measuring {name}")
        made = list(MEASUREMENTS[name](scale))
        seen += made
        result["figures"][name] = [figure.as_json() for figure in made]
        # Each measurement is kept as soon as it is there: the next one may take an hour.
        asked.output.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(result, indent=1, ensure_ascii=False))
    terminal.print(figures.table(seen))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description="Measure, and hold it to the goals.")
    parser.add_argument("--only", type=_names, metavar="NAME,…", help=", ".join(MEASUREMENTS))
    parser.add_argument("--all", action="store_true", help=f"the long ones, too: {', '.join(sorted(LONG))}")
    parser.add_argument("--rounds", type=int, default=Scale.rounds)
    parser.add_argument("--messages", type=int, default=Scale.messages)
    parser.add_argument("--output", type=Path, default=BUILD / "figures.json", metavar="FILE")
    return parser


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no {unknown[0]}; there are {', '.join(MEASUREMENTS)}")
    return names


def _machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
