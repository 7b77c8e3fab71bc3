"""The records of a file: CSV or JSON lines, as a stream, each with the line it begins on.

What is wrong with a line is a fault of that line: no line hides the next, whatever its encoding or quoting.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from mailbound.errors import InputError

CSV = "csv"
JSONL = "jsonl"

FIRST = "first"
_FIRST_NAMES = frozenset({"external_id", "address", "email"})
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_DELIMITERS = ",;\t|"
_LONGEST_LINE = 2**20
_MOST_LINES = 100  # that one record may span within quotes; then a quotation mark was forgotten


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a record cannot be used."""

    reason: str


class Record(NamedTuple):
    """The line where it begins, its fields by the names of their columns (or its fault), and its text."""

    line: int
    fields: dict[str, Any] | Fault
    text: str


def format_of(name: str, stream: BinaryIO) -> str:
    """Return `csv` or `jsonl`, by the name of the file or else by its first character."""
    suffix = name.lower().rpartition(".")[2]
    if suffix in {CSV, "tsv", "txt"}:
        return CSV
    if suffix in {JSONL, "ndjson"}:
        return JSONL
    stream.seek(0)
    start = stream.read(4096).removeprefix(_BOM).lstrip()
    stream.seek(0)
    return JSONL if start.startswith(b"{") else CSV


def head(stream: BinaryIO) -> list[str]:
    """Return the names of a CSV file's columns. Raises InputError if there are none."""
    stream.seek(0)
    _, names = _head(_lines(stream))
    return [name for name in names if name]


def read(stream: BinaryIO, form: str) -> Iterator[Record]:
    """Give the records of a file from its beginning. Raises InputError if it cannot be read at all."""
    stream.seek(0)
    return _csv(_lines(stream)) if form == CSV else _json_lines(_lines(stream))


def first_column(stream: BinaryIO) -> Iterator[Record]:
    """Give the first value of each line, as the field `FIRST`; a line that only names the column is left out."""
    stream.seek(0)
    lines = _lines(stream)
    delimiter = None
    for number, line in lines:
        is_first, delimiter = delimiter is None, delimiter or max(_DELIMITERS, key=line.count)
        values, text = _split(line, delimiter, lines)
        if isinstance(values, Fault):
            yield Record(number, values, text)
        elif not _is_utf8(text) or "\0" in text:
            yield Record(number, Fault("it is not UTF-8 text"), text)
        elif values[0].strip() and not (is_first and values[0].strip().casefold() in _FIRST_NAMES):
            yield Record(number, {FIRST: values[0].strip()}, text)


class _lines:  # noqa: N801 - used as a function
    """The lines of a file that are not blank, decoded, with their numbers; they can be given back.

    Octets that are not UTF-8 become surrogates, so that the fault can be told of the record they stand in.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._number = 0
        self._back: list[tuple[int, str]] = []

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return self

    def __next__(self) -> tuple[int, str]:
        if self._back:
            return self._back.pop()
        while raw := self._stream.readline(_LONGEST_LINE):
            self._number += 1
            if self._number == 1:
                raw = self._first(raw)
            if len(raw) == _LONGEST_LINE and not raw.endswith(b"\n"):
                self._skip_rest()
            if not raw.isspace():
                return self._number, raw.decode("utf-8", "surrogateescape")
        raise StopIteration

    def give_back(self, lines: list[tuple[int, str]]) -> None:
        self._back.extend(reversed(lines))

    def _first(self, raw: bytes) -> bytes:
        if raw.startswith(_UTF16):
            raise InputError("the file is in UTF-16; save it as UTF-8")
        return raw.removeprefix(_BOM) or b"\n"

    def _skip_rest(self) -> None:
        while (rest := self._stream.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
            pass


def _head(lines: _lines) -> tuple[str, list[str]]:
    """Return the delimiter and the columns' names; an unnamed column has the name ''."""
    number, line = next(lines, (0, ""))
    if not line:
        raise InputError("the file is empty; its first line must name the columns")
    if "\r" in line.rstrip("\r\n"):
        raise InputError("the file's lines end with CR alone; save it with LF or CRLF")
    delimiter = max(_DELIMITERS, key=line.count)
    names, _ = _split(line, delimiter, lines)
    if not _is_utf8(line):
        raise InputError(f"line {number}, which names the columns, is not UTF-8; save the file as UTF-8")
    if isinstance(names, Fault):
        raise InputError(f"line {number}, which names the columns: {names.reason}")
    names = [name.strip() for name in names]
    twice = {name for name in names if name and names.count(name) > 1}
    if twice:
        raise InputError(f"line {number} names a column twice: {', '.join(sorted(twice))}")
    return delimiter, names


def _csv(lines: _lines) -> Iterator[Record]:
    delimiter, names = _head(lines)
    for number, line in lines:
        values, text = _split(line, delimiter, lines)
        if isinstance(values, Fault):
            yield Record(number, values, text)
        elif not _is_utf8(text):
            yield Record(number, Fault("it is not UTF-8"), text)
        elif "\0" in text:
            yield Record(number, Fault("it has a NUL character"), text)
        elif len(values) == len(names):
            if any(values):
                yield Record(number, dict(zip(names, values, strict=True)), text)
        elif any(values):
            yield Record(number, Fault(f"it has {len(values)} fields, not {len(names)}"), text)


def _split(line: str, delimiter: str, lines: _lines) -> tuple[list[str] | Fault, str]:
    """Return a record's values and its text; it takes further lines while a quotation mark is open."""
    if '"' not in line:
        text = line.rstrip("\r\n")
        return text.split(delimiter), text
    taken: list[tuple[int, str]] = []
    text = line
    while True:
        try:
            values = next(csv.reader((text.rstrip("\r\n"),), delimiter=delimiter, strict=True))
            return values, text.rstrip("\r\n")
        except csv.Error as error:
            following = (
                next(lines, None) if "unexpected end" in str(error) and len(taken) < _MOST_LINES else None
            )
            if following is None:
                lines.give_back(taken)
                return Fault(_reason(error)), line.rstrip("\r\n")
        taken.append(following)
        text += following[1]


def _reason(error: csv.Error) -> str:
    if "unexpected end" in str(error):
        return "a quotation mark is not closed"
    if "expected after" in str(error):
        return "something follows a closing quotation mark"
    return str(error)


def _json_lines(lines: _lines) -> Iterator[Record]:
    for number, line in lines:
        text = line.rstrip("\r\n")
        yield Record(number, _object(text), text)


def _object(text: str) -> dict[str, Any] | Fault:
    if not _is_utf8(text):
        return Fault("it is not UTF-8")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        return Fault(f"it is no JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:
        return Fault(f"it is no JSON: {error}")
    if not isinstance(value, dict):
        return Fault("it is no JSON object")
    if "\\u" in text and not _storable(value):
        return Fault("it has a character that no database keeps (NUL or half a surrogate pair)")
    return value


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _storable(value: Any) -> bool:
    text = json.dumps(value, ensure_ascii=False)
    return "\\u0000" not in text and _is_utf8(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large")
    return value


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse)
