"""Against django-post-office, which sends what a database has queued, too: the same letter, database and sink.

It renders a whole batch before it sends the first of it, so its rate counts from where it begins, Django being loaded.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import figures
import sending
import stage
from figures import Figure, Scale
from relays import Sink
from syncs import BUILD

_PACKAGES = ("django>=5.2,<6", "django-post-office>=3.12", "psycopg[binary]>=3.2")
_GOALS = {1: 10, 2: 6}
_SHARE = 10
"""It gets only this part of the messages: it is slow."""


def measure(scale: Scale) -> Iterator[Figure]:
    """Return our rate against theirs, with one process and with two."""
    for kind in ("sqlite", "postgresql"):
        sides: dict[str, Callable[[], float]] = {
            "ours": partial(_ours, kind, scale.messages),
            **{
                str(count): partial(_theirs, kind, max(scale.messages // _SHARE, 10), count)
                for count in _GOALS
            },
        }
        seen = figures.take_turns(sides, scale.rounds)
        for count, goal in _GOALS.items():
            theirs = seen[str(count)]
            beside = figures.medians(rate=seen["ours"], post_office_rate=theirs)
            name = f"end to end, {kind} / django-post-office, processes: {count}"
            yield Figure(name, figures.ratios(seen["ours"], theirs), goal, beside=beside)


def _ours(kind: str, messages: int) -> float:
    return sending.mailbound(recipients=messages, connections=10, kind=kind).rate


def _theirs(kind: str, messages: int, processes: int) -> float:
    with stage.folder() as folder, stage.database(kind, folder) as url, Sink(folder) as sink:
        _site(url, sink.port, "prepare", str(messages))
        begun = float(_site(url, sink.port, "send", str(processes), str(folder / "lock")).split()[0])
        assert sink.count == messages, f"the sink took {sink.count}, not {messages}"
        return messages / (sink.last - begun)


def _site(url: str, port: int, *words: str) -> bytes:
    """Run the rival, and return what it prints."""
    program = str(Path(__file__).with_name("rival_site.py"))
    command = [_python(), program, url, str(port), *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


@cache
def _python() -> str:
    """Return the interpreter of a virtual environment with the rival in it; it is made if it is not there."""
    home = BUILD / "rival"
    if not (home / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        quiet = ["install", "--disable-pip-version-check", "--quiet"]
        subprocess.run([str(home / "bin" / "pip"), *quiet, *_PACKAGES], check=True)
        (home / "ready").touch()
    return str(home / "bin" / "python")
