"""How fast mail is read, against the parser of the standard library on the same mails.

    python bench/reading.py [FOLDER | FILE ...]        # or paths on standard input, one a line

Both read the same octets, held in memory, in turns, so that what else the machine does meets both alike. The medians
of five rounds are printed as JSON: mails per second of processor time, and how many times the standard parser's rate
ours is; the same again for the small mails, where a reader that looks at everything has the least to skip. The
standard parser only builds a tree; ours decodes what matters, and says what the mail means.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

from mailbound.reading import read

ROUNDS = 5
SMALL_OCTETS = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "path", nargs="*", help="a folder or a file of mail [default: the lines of standard input]"
    )
    try:
        mails = [path.read_bytes() for path in _paths(parser.parse_args().path)]
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    if not mails:
        parser.error("no mail to read: name a folder or files, or write their paths to standard input")
    result = _measured(mails)
    if small := [raw for raw in mails if len(raw) < SMALL_OCTETS]:
        result["small"] = _measured(small)
    print(json.dumps(result))


def _measured(mails: list[bytes]) -> dict[str, Any]:
    ours: list[float] = []
    theirs: list[float] = []
    slowest = 0.0
    for _ in range(ROUNDS):
        seconds, longest = _seconds(mails, read)
        ours.append(len(mails) / seconds)
        slowest = max(slowest, longest)
        theirs.append(len(mails) / _seconds(mails, _standard)[0])
    return {
        "mails": len(mails),
        "octets": sum(map(len, mails)),
        "mailbound": round(statistics.median(ours)),
        "email.compat32": round(statistics.median(theirs)),
        "times": round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 2),
        "slowest_ms": round(slowest * 1000, 1),
    }


def _standard(raw: bytes) -> object:
    return message_from_bytes(raw, policy=policy.compat32)


def _seconds(mails: list[bytes], reader: Callable[[bytes], object]) -> tuple[float, float]:
    """Return the processor time for all mails, and for the slowest of them."""
    longest = 0.0
    begin = last = time.process_time()
    for raw in mails:
        reader(raw)
        now = time.process_time()
        longest = max(longest, now - last)
        last = now
    return last - begin, longest


def _paths(arguments: list[str]) -> Iterable[Path]:
    named = [
        Path(argument) for argument in arguments or (line.rstrip("\n") for line in sys.stdin) if argument
    ]
    for path in named:
        yield from sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]


if __name__ == "__main__":
    main()
