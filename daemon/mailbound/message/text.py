"""Text parts in quoted-printable, quickly: what the template itself says is encoded once for all messages.

The pieces of a part come as the template made them: its own texts, always the same, and the values between them.
Which texts come in which order is the part's shape; there are few, for a template has few conditions and loops.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import NamedTuple

from mailbound.message import quoted_printable
from mailbound.message.headers import MessageFault
from mailbound.message.quoted_printable import SOFT, WIDTH

_HEAD = b"Content-Type: text/%s; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
_WORTH_A_BREAK = 24  # characters
_LEAST_ROOM = 3  # octets
_MOST_SHAPES = 256
_HOLE, _ENCODED_HOLE = "\0", b"=00"  # what stands for a value while the shape of a line is made

_PLAIN_VALUES = re.compile(r"(?:[!-\-/-<>-~](?:[ -<>-~]*[!-<>-~])?(?:\n|\Z))+")
"""Values, a line each, that are written as they are wherever in a line they stand."""


class _Shape(NamedTuple):
    """A part without its values."""

    are_values: list[bool]  # the pieces
    around: list[bytes]  # what is encoded, with a place for a value at each odd index
    rooms: list[int]  # how many octets a value may have for its line to hold it


class _Line(NamedTuple):
    """A line, or a piece of one that a soft break ends, and what is encoded already and stands behind it."""

    texts: list[str]  # between each two of them is a value
    soft: bool
    behind: bytes


class _Cut(NamedTuple):
    """A text of the template, encoded as far as what stands around it does not matter."""

    end: str | None  # of the line that it begins in; None if it stands in what is encoded
    encoded: bytes
    beginning: str  # of the line that it ends in; "" if that, too, stands there


class Text:
    """Writes the text parts of the messages of one template.

    Soft line breaks part what is long in the template from what is filled in beside it.
    """

    def __init__(self, subtype: str, constants: Iterable[str]) -> None:
        """Take the texts that messages will hold unchanged."""
        self._subtype = subtype
        self._head = _HEAD % subtype.encode()
        usable = (text for text in constants if "\r" not in text and _HOLE not in text)
        self._numbers = {text: number for number, text in enumerate(usable)}
        self._shapes: dict[tuple[int | None, ...], _Shape] = {}

    def encode(self, pieces: Sequence[str]) -> list[bytes]:
        """Return the part that holds `pieces`, one after the other, in pieces of its own.

        No line of it begins with a dot. Raises MessageFault for what UTF-8 cannot say.
        """
        key = tuple(map(self._numbers.get, pieces))
        try:
            shape = self._shapes.get(key) or self._remembered(key, pieces)
            return _filled(shape, list(compress(pieces, shape.are_values))) or [
                self._head,
                _as_a_whole("".join(pieces)),
            ]
        except UnicodeEncodeError:
            raise MessageFault(f"the {self._subtype} part holds half a surrogate pair") from None

    def _remembered(self, key: tuple[int | None, ...], pieces: Sequence[str]) -> _Shape:
        if len(self._shapes) >= _MOST_SHAPES:
            self._shapes.clear()
        are_values = [number is None for number in key]
        around, rooms = [self._head], list[int]()
        for line in _lines(pieces, are_values):
            (first, *others), room = _around(line)
            around[-1] += first
            for octets in others:
                around += (b"", octets)
                rooms.append(room)
            around[-1] += line.behind
        shape = self._shapes[key] = _Shape(are_values, around, rooms)
        return shape


def _filled(shape: _Shape, values: list[str]) -> list[bytes] | None:
    """Return the part in pieces, or None if a value has an end of a line in it, or the last line may be none."""
    joined = "\n".join(values)
    encoded = joined.encode().split(b"\n")
    if len(encoded) != len(values) or "\r" in joined or (shape.are_values[-1] and not values[-1]):
        return None if values else shape.around
    plain = _PLAIN_VALUES.fullmatch(joined)
    if not plain:
        encoded = list(map(quoted_printable.line, values))
    filled = shape.around.copy()
    filled[1::2] = encoded
    if not plain or any(map(operator.gt, map(len, values), shape.rooms)):
        for place, value, room in zip(range(1, len(filled), 2), values, shape.rooms, strict=True):
            if not 0 < len(filled[place]) <= room:
                filled[place : place + 2] = _apart(value, filled[place + 1])
    return filled


def _apart(value: str, behind: bytes) -> tuple[bytes, bytes]:
    """Return a value that does not fit its line on lines of its own, and what follows it."""
    if behind.startswith(b"."):
        behind = b"=2E" + behind[1:]
    return SOFT + _piece(value, soft=True), behind


def _as_a_whole(text: str) -> bytes:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    return b"".join(quoted_printable.line(line) + b"\r\n" for line in lines)


def _lines(pieces: Sequence[str], are_values: Sequence[bool]) -> Iterator[_Line]:
    """Yield the lines of a part. The last one has an end whether or not the text has."""
    texts = [""]
    is_open = True
    for piece, is_value in zip(pieces, are_values, strict=True):
        if is_value:
            texts.append("")
        elif "\n" not in piece and len(piece) < _WORTH_A_BREAK:
            texts[-1] += piece
        else:
            cut = _cut(piece)
            texts[-1] += cut.end or ""
            yield _Line(texts, cut.end is None, cut.encoded)
            texts = [cut.beginning]
            is_open = cut.encoded.endswith(SOFT)
    if is_open or texts != [""]:
        yield _Line(texts, soft=False, behind=b"")


def _cut(text: str) -> _Cut:
    if "\n" not in text:
        return _Cut(None, _piece(text, soft=True), "")
    end: str | None
    end, *lines, beginning = str.split(text, "\n")  # it may be Markup, whose own methods take their time
    encoded = [_piece(line, soft=False) for line in lines]
    if len(end) >= _WORTH_A_BREAK:
        encoded.insert(0, _piece(end, soft=False))
        end = None
    if len(beginning) >= _WORTH_A_BREAK:
        encoded.append(_piece(beginning, soft=True))
        beginning = ""
    return _Cut(end, b"".join(encoded), beginning)


def _around(line: _Line) -> tuple[list[bytes], int]:
    """Return what stands before, between and behind the values of a line, and how much room each of them has."""
    count = len(line.texts) - 1
    if not count:
        return [_piece(line.texts[0], soft=line.soft)], 0
    octets = quoted_printable.line(_HOLE.join(line.texts))
    room = (WIDTH - 1 - len(octets) + count * len(_ENCODED_HOLE)) // count
    if room < _LEAST_ROOM or b"\n" in octets or b"=2E" in octets or octets.endswith((b"=20", b"=09")):
        return _parted(line), WIDTH - 1
    return (octets + (SOFT if line.soft else b"\r\n")).split(_ENCODED_HOLE), room


def _parted(line: _Line) -> list[bytes]:
    """Return what stands around the values of a line with a soft break between them and it."""
    first, *middle, last = line.texts
    return [
        _piece(first, soft=True),
        *(SOFT + _piece(text, soft=True) for text in middle),
        SOFT + _piece(last, soft=line.soft),
    ]


def _piece(text: str, *, soft: bool) -> bytes:
    """Return a line with its end, or a piece of one with a soft break behind it, if there is anything."""
    if not soft:
        return quoted_printable.line(text) + b"\r\n"
    return quoted_printable.broken(quoted_printable.line(text)) if text else b""
