"""CSV (RFC 4180) that a spreadsheet takes for what it is: text, never a formula."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TextIO

# What makes a spreadsheet compute instead of show; the wide forms are read as the narrow ones.
_FORMULA = tuple("=+-@＝＋－＠")  # noqa: RUF001 - they are meant
_BLANKS = " \u00a0\u200b\u2060\ufeff"


def write(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, out: TextIO | None = None) -> None:
    """Write a head and rows, every cell in quotes, on standard output or `out`."""
    writer = csv.writer(out or sys.stdout, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([cell(value) for value in row] for row in rows)


def cell(value: Any) -> str:
    """Return what stands in a cell. An apostrophe keeps a spreadsheet from computing it."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, bool | int | float):
        return str(value)  # our own: no stranger wrote it
    text = str(value.value if isinstance(value, Enum) else value)
    dangerous = text.startswith(("\t", "\r", "\n")) or text.lstrip(_BLANKS).startswith(
        (*_FORMULA, "\t", "\r")
    )
    return f"'{text}" if dangerous else text
