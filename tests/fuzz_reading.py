"""Look for mail that the readers cannot bear: `python tests/fuzz_reading.py --seconds 3600`.

With atheris (`pip install atheris`), mutations follow what code they reach; without it they are blind, which is slower
to find something but needs nothing installed. Either way half of them know what a mail is made of. What breaks a
property of `reading_properties` is told from other finds by its signature: which property it is, how it broke, and
where. The smallest mail of each signature, made as small as it goes, is written to `--finds`; the search goes on. At
its end the signatures are listed, the commonest first. The exit status is 1 if anything was found.

`--seeds FOLDER` adds mail to begin from; `--corpus FOLDER` keeps what reached new code, so that the next run knows it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import os
import random
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import mailbound
import mutations

try:
    import atheris
except ImportError:
    atheris = None

INSTRUMENTED_SECONDS = 5.0  # watching each branch costs time that is not the reader's
MINIMISING_SECONDS = 20.0


@dataclass
class Search:
    """The mail tried so far, and what was found: the smallest mail of each signature, and how often it came."""

    properties: ModuleType
    until: float
    finds: Path
    seconds: float = 1.0  # that a mail may take
    tried: int = 0
    found: dict[str, bytes] = field(default_factory=dict)
    times: Counter[str] = field(default_factory=Counter)
    is_over: Callable[[], None] = lambda: None

    def attempt(self, raw: bytes) -> None:
        """Read one mail. Ends the search if its time is over."""
        if time.monotonic() > self.until:
            self.is_over()
            return
        self.tried += 1
        sign = self._fault(raw)
        if not sign:
            return
        self.times[sign] += 1
        if sign not in self.found or len(raw) < len(self.found[sign]):
            self._keep(sign, minimised(raw, lambda other: self._fault(other) == sign))

    def groups(self) -> str:
        """Return a line for each signature, with how often it came and where its smallest mail is."""
        return "\n".join(
            f"{times:7} x  {sign}  ({self._path(sign)}, {len(self.found[sign])} octets)"
            for sign, times in self.times.most_common()
        )

    def _keep(self, sign: str, small: bytes) -> None:
        if sign not in self.found:
            print(f"\nFOUND {sign}\n  {self._path(sign)}: {small[:300]!r}", flush=True)
        self.found[sign] = small
        self._path(sign).write_bytes(small)

    def _path(self, sign: str) -> Path:
        return self.finds / f"{hashlib.sha256(sign.encode()).hexdigest()[:12]}.eml"

    def _fault(self, raw: bytes) -> str:
        """Return the signature of what a mail breaks; "" if it breaks nothing."""
        try:
            self.properties.check(raw, seconds=self.seconds)
        except AssertionError as error:
            return str(error).partition("\n")[
                0
            ]  # the property, and how it broke; what follows is about this mail
        except self.properties.TooSlow as error:
            return f"too slow in {_place(error, innermost=False)}"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a find
            return f"{type(error).__name__} in {_place(error, innermost=True)}"
        return ""


def _place(error: BaseException, *, innermost: bool) -> str:
    """Return the function of ours that failed, or, since where time runs out is chance, the reader that had begun."""
    package = f"{Path(mailbound.__file__).parent}{os.sep}"
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(package) and Path(frame.filename).name != "__init__.py"
    ]
    if not ours:
        return "none of ours"
    frame = ours[-1 if innermost else 0]
    return f"{Path(frame.filename).name}:{frame.name}"


def minimised(raw: bytes, still: Callable[[bytes], bool]) -> bytes:
    """Return the smallest mail near `raw` of which `still` holds, as far as the time allows."""
    until = time.monotonic() + MINIMISING_SECONDS
    for parts in (rb"(?<=\n)", rb"(?<=\W)", rb"(?<=.)"):
        pieces = [piece for piece in re.split(parts, raw) if piece]
        step = max(len(pieces) // 2, 1)
        while step:
            at = 0
            while at < len(pieces) and time.monotonic() < until:
                fewer = pieces[:at] + pieces[at + step :]
                if still(b"".join(fewer)):
                    pieces = fewer
                else:
                    at += step
            step //= 2
        raw = b"".join(pieces)
    return raw


def blindly(search: Search, seeds: list[bytes], chance: random.Random) -> None:
    """Try the seeds, then changed ones until the time is over."""
    for seed in seeds:
        search.attempt(seed)
    while time.monotonic() < search.until:
        search.attempt(mutations.mutated(chance.choice(seeds), chance, seeds))


def guided(search: Search, seeds: list[bytes], corpus: Path) -> None:
    """Let atheris choose what to try. Does not return: libFuzzer ends the process."""

    def mutate(raw: bytes, size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.4:
            return atheris.Mutate(raw, size)
        return mutations.mutated(bytes(raw), chance, seeds)[:size]

    for seed in seeds:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed[: mutations.SIZE_LIMIT])
    options = [
        sys.argv[0],
        f"-max_len={mutations.SIZE_LIMIT}",
        "-rss_limit_mb=1500",
        "-print_final_stats=1",
        str(corpus),
    ]
    atheris.Setup(options, search.attempt, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> None:
    """Run the search that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to search")
    parser.add_argument("--seed", type=int, default=None, help="of the blind search, to repeat one")
    parser.add_argument("--blind", action="store_true", help="do without atheris")
    parser.add_argument(
        "--finds", type=Path, default=Path("build/finds"), help="where to write what was found"
    )
    parser.add_argument("--corpus", type=Path, help="where to keep what reached new code")
    parser.add_argument("--seeds", type=Path, action="append", default=[], help="more mail to begin from")
    wanted = parser.parse_args()
    is_guided = atheris is not None and not wanted.blind
    watching: Any = (
        atheris.instrument_imports(include=["mailbound"]) if is_guided else contextlib.nullcontext()
    )
    with watching:
        properties = importlib.import_module("reading_properties")
    seeds = properties.seeds()
    seeds += [path.read_bytes() for folder in wanted.seeds for path in folder.rglob("*") if path.is_file()]
    wanted.finds.mkdir(parents=True, exist_ok=True)
    search = Search(properties, time.monotonic() + wanted.seconds, wanted.finds)

    def end() -> None:
        print(f"{search.tried} mails tried, {len(search.found)} signatures found", flush=True)
        print(search.groups(), flush=True)
        os._exit(1 if search.found else 0)  # libFuzzer lets nobody else end the process

    if is_guided:
        search.seconds, search.is_over = INSTRUMENTED_SECONDS, end
        with tempfile.TemporaryDirectory() as folder:
            corpus = wanted.corpus or Path(folder)
            corpus.mkdir(parents=True, exist_ok=True)
            guided(search, seeds, corpus)
    blindly(search, seeds, random.Random(wanted.seed))
    end()


if __name__ == "__main__":
    main()
