"""The file that is imported, opened so that it can be read more than once, and how far it was read."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from mailbound.errors import InputError

T = TypeVar("T")
_OFTEN = 1000  # rows between two moves of the progress bar


@dataclass(frozen=True, slots=True)
class File:
    """A file by its name (`-` is standard input), and its form if somebody said it: csv or jsonl."""

    name: str
    stream: BinaryIO
    form: str | None = None

    def octets(self) -> int:
        """Return how many octets it has; where it is being read stays as it is."""
        at = self.stream.tell()
        size = self.stream.seek(0, os.SEEK_END)
        self.stream.seek(at)
        return size


@contextlib.contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """Give a file that can be read twice; `-` is standard input. Raises InputError if it cannot be read."""
    with contextlib.ExitStack() as stack:
        try:
            stream, regular = sys.stdin.buffer, False
            if name != "-":
                stream = stack.enter_context(Path(name).open("rb"))
                regular = stat.S_ISREG(Path(name).stat().st_mode)
            if not regular:
                stream = stack.enter_context(_spooled(stream))
        except OSError as error:
            raise InputError(f"{name}: {error.strerror or error}") from error
        yield stream


@contextlib.contextmanager
def _spooled(stream: BinaryIO) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        yield copy


def watched(rows: Iterator[T], stream: BinaryIO, advance: Callable[[int], None]) -> Iterator[T]:
    """Give the same rows, and say now and then how many octets of `stream` they took."""
    at = 0
    for count, row in enumerate(rows):
        if count % _OFTEN == 0:
            now = stream.tell()
            advance(now - at)
            at = now
        yield row
    advance(stream.tell() - at)
