"""Text parts in quoted-printable, quickly: what the template itself says is encoded once for all messages.

Which texts of the template come in which order is the shape of a part; there are few, for a template has few conditions
and loops. The values between them come in columns, and are looked at a column at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import NamedTuple

from mailbound.message import quoted_printable
from mailbound.message.headers import MessageFault
from mailbound.message.quoted_printable import SOFT, WIDTH
from mailbound.template.sheet import Part

_HEAD = b"Content-Type: text/%s; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
_WORTH_A_BREAK = 24  # characters
_LEAST_ROOM = 12  # octets
_MOST_SHAPES = 256
_HOLE, _ENCODED_HOLE = "\0", b"=00"  # what stands for a value while the shape of a line is made
_NO_TEXT = re.compile(r"[\0\r]")  # in a text of which a shape could be made
_END = re.compile(r"[\r\n]")


Encoded = dict[int, list[bytes] | None]
"""Columns in quoted-printable, by their identity: the same ones stand in the text and in the HTML."""


class _Shape(NamedTuple):
    """A part without its values."""

    around: list[bytes]  # what stands before, between and behind them
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

    def __init__(self, subtype: str) -> None:
        """Write `text/<subtype>`."""
        self._subtype = subtype
        self._head = _HEAD % subtype.encode()
        self._shapes: dict[tuple[str, ...], _Shape | None] = {}

    def encode(self, part: Part, count: int, known: Encoded | None = None) -> list[bytes]:
        """Return the part for each of `count` messages, with its Content fields.

        `known` holds columns of theirs that were encoded before. No line begins with a dot. Raises MessageFault for
        what UTF-8 cannot say.
        """
        try:
            shape = self._shape(part.texts)
            if shape is None:
                return [self._head + _as_a_whole(part.whole(number)) for number in range(count)]
            return self._filled(shape, part, count, {} if known is None else known)
        except UnicodeEncodeError:
            raise MessageFault(f"the {self._subtype} part holds half a surrogate pair") from None

    def _shape(self, texts: tuple[str, ...]) -> _Shape | None:
        """Return the shape of these texts, or None if they have none."""
        try:
            return self._shapes[texts]
        except KeyError:
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            usable = not any(map(_NO_TEXT.search, texts))
            shape = self._shapes[texts] = _shape_of(self._head, texts) if usable else None
            return shape

    def _filled(self, shape: _Shape, part: Part, count: int, known: Encoded) -> list[bytes]:
        around = iter(shape.around)
        pieces: list[Iterable[bytes]] = [repeat(next(around), count)]
        odd = set[int]()
        for column, room, behind in zip(part.columns, shape.rooms, around, strict=True):
            if id(column) not in known:
                known[id(column)] = quoted_printable.lines(column)
            encoded = known[id(column)]
            if encoded is None:
                odd.update(number for number, value in enumerate(column) if _END.search(value))
                encoded = list(map(quoted_printable.line, column))
            if max(map(len, encoded)) <= room and all(encoded):
                pieces += (encoded, repeat(behind))
            else:
                pieces += _fitted(encoded, room, behind)
        if part.columns and not part.texts[-1]:
            odd.update(number for number, value in enumerate(part.columns[-1]) if not value)
        parts = list(map(b"".join, zip(*pieces, strict=False)))
        for number in odd:
            parts[number] = self._head + _as_a_whole(part.whole(number))
        return parts


def _shape_of(head: bytes, texts: Sequence[str]) -> _Shape:
    around, rooms = [head], list[int]()
    for line in _lines(texts):
        (first, *others), room = _around(line)
        around[-1] += first
        around += others
        rooms += [room] * len(others)
        around[-1] += line.behind
    return _Shape(around, rooms)


def _fitted(encoded: Iterable[bytes], room: int, behind: bytes) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """Return values, those that do not fit their line on lines of their own, and what follows each of them."""
    undotted = b"=2E" + behind[1:] if behind.startswith(b".") else behind
    pairs = [
        (octets, behind) if 0 < len(octets) <= room else (_apart(octets), undotted) for octets in encoded
    ]
    values, followers = zip(*pairs, strict=True)
    return values, followers


def _apart(octets: bytes) -> bytes:
    return SOFT + quoted_printable.broken(octets) if octets else SOFT


def _as_a_whole(text: str) -> bytes:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    return b"".join(quoted_printable.line(line) + b"\r\n" for line in lines)


def _lines(texts: Sequence[str]) -> Iterator[_Line]:
    """Yield the lines of a part that has a value between each two texts. Its last line is ended, too."""
    line = [""]
    is_open = True
    for number, text in enumerate(texts):
        if number:
            line.append("")
        if "\n" not in text and len(text) < _WORTH_A_BREAK:
            line[-1] += text
        else:
            cut = _cut(text)
            line[-1] += cut.end or ""
            yield _Line(line, cut.end is None, cut.encoded)
            line = [cut.beginning]
            is_open = cut.encoded.endswith(SOFT)
    if is_open or line != [""]:
        yield _Line(line, soft=False, behind=b"")


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
