"""The lines of a file that could not be used, written beside it with the reason."""

from __future__ import annotations

import contextlib
import csv
import os
from pathlib import Path
from typing import TextIO

from mailbound.errors import InputError

_KEPT = 5  # how many are shown at the end
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Faults:
    """Collects faults in `FILE.faults.csv`, which is there only if there are any."""

    def __init__(self, source: str) -> None:
        """Remove what an earlier import of `source` (a path, or `-`) left there."""
        self.count = 0
        self.first: list[tuple[int, str]] = []
        self.path = _path(source)
        with contextlib.suppress(OSError):
            self.path.unlink()
        self._file: TextIO | None = None

    def add(self, line: int, reason: str, text: str) -> None:
        """Write one fault: the number of its line, the reason, and the line."""
        if self._file is None:
            self._file = self._open()
            csv.writer(self._file).writerow(("line", "reason", "text"))
        self.count += 1
        if len(self.first) < _KEPT:
            self.first.append((line, reason))
        row = (line, _harmless(reason), _harmless(text))
        csv.writer(self._file, quoting=csv.QUOTE_ALL).writerow(row)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _open(self) -> TextIO:
        try:
            descriptor = os.open(
                self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
            )  # it holds addresses
        except OSError as error:
            raise InputError(f"{self.path}, for the faulty rows: {error.strerror}") from error
        return os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="")


def _path(source: str) -> Path:
    file = Path("stdin" if source == "-" else source)
    folder = file.parent if os.access(file.parent, os.W_OK) else Path()
    return folder / f"{file.name}.faults.csv"


def _harmless(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.lstrip(" \ufeff").startswith(_FORMULA) else text
