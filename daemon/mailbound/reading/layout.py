"""A mail laid out as a person reads it: each line with its encoding undone, and with where it stands in the file.

A text in base64 or HTML is shown as the text that it is, and what is no text is named instead of shown. What no reader
looks at is one line, however long it is, so that a mail of any size stays a page of any size.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from mailbound.reading import structure
from mailbound.reading.structure import SIZE_LIMIT, TEXT_LIMIT, Part

LINES_LIMIT = 20_000
"""Lines of a mail that are laid out."""

WIDTH_LIMIT = 1000
"""Characters of a line that are kept."""

_NO_TEXT = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x9f\ufffd]")
_NO_TEXT_SHARE = 8  # one in so many characters makes a line no text
_TEXTS = ("text/", "message/", "multipart/", "application/json")


class Zone(StrEnum):
    """What a line belongs to."""

    HEADER = "header"  # of the mail itself
    FENCE = "fence"  # between the parts: boundaries, their headers, what no reader of mail shows
    BODY = "body"
    NOTE = "note"  # not of the mail: it says what stands there


@dataclass(frozen=True, slots=True)
class Line:
    """One line as it is shown, and the first and last line of the file that it stands in, counted from 1."""

    first: int
    last: int
    zone: Zone
    part: int  # which of `Mail.leaves` it belongs to; for a fence, the one that follows
    text: str


def lay_out(raw: bytes) -> tuple[Line, ...]:
    """Return the mail that `raw` is, line by line. Nothing makes it raise."""
    return tuple(_without_noise(_Page(raw).lines()))


def _without_noise(lines: Iterator[Line]) -> Iterator[Line]:
    """Yield the lines, with one in the place of those that follow each other and are no text."""
    for is_noise, group in itertools.groupby(
        lines, lambda line: line.zone is not Zone.NOTE and _is_noise(line.text)
    ):
        if not is_noise:
            yield from group
            continue
        noise = list(group)
        first, last = noise[0].first, noise[-1].last
        what = f"[{_counted(sum(len(line.text) for line in noise), 'character')} that are no text]"
        yield Line(first, last, Zone.NOTE, noise[0].part, what)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class _Page:
    """One mail that is being laid out, from its first octet to its last."""

    def __init__(self, raw: bytes) -> None:
        self._mail = structure.parse(raw)
        self._read = self._mail.begin + len(self._mail.body)  # octets; the limit may have cut off the rest
        whole = structure.with_lf(raw)
        begin = len(structure.with_lf(raw[:SIZE_LIMIT])) - self._read  # an mbox separator stands before it
        self._octets = memoryview(whole)[begin:]
        self._at = 0
        self._number = whole.count(b"\n", 0, begin) + 1
        self._left = LINES_LIMIT

    def lines(self) -> Iterator[Line]:
        """Yield all lines, in order."""
        yield from self._as_they_are(self._mail.begin, Zone.HEADER, 0)
        for index, leaf in enumerate(self._mail.leaves()):
            if leaf is not self._mail:
                yield from self._as_they_are(leaf.begin, Zone.FENCE, index)
            yield from self._body(leaf, index)
        yield from self._as_they_are(len(self._octets), Zone.FENCE, index)

    def _body(self, leaf: Part, index: int) -> Iterator[Line]:
        end = leaf.begin + len(leaf.body)
        end = end if end < self._read else len(self._octets)
        encoding = leaf.headers.get("content-transfer-encoding").partition(";")[0].strip().lower()
        if not leaf.content_type.startswith(_TEXTS):
            size = f"{len(leaf.body):,} octets"
            what = ", ".join(filter(None, (leaf.content_type, size, encoding)))
            yield from self._instead(end, index, f"{what}: not shown", "")
        elif leaf.content_type == "text/html":
            yield from self._instead(end, index, "HTML, shown as its text", leaf.text)
        elif encoding == "base64":
            text = leaf.text or structure.text_of(structure.with_lf(leaf.content[:TEXT_LIMIT]))
            yield from self._instead(end, index, "base64, shown as its text", text)
        else:
            quoted = encoding == "quoted-printable"
            yield from self._as_they_are(end, Zone.BODY, index, leaf.parameter("charset"), quoted=quoted)

    def _instead(self, end: int, index: int, note: str, text: str) -> Iterator[Line]:
        """Yield `note` and the lines of `text` for all the octets up to `end`."""
        octets, first = self._take(end)
        if not octets.strip():
            return
        last = max(self._number - 1, first)
        yield Line(first, last, Zone.NOTE, index, f"[{note}]"[:WIDTH_LIMIT])
        for line in text.rstrip("\n").split("\n", self._left + 1)[: self._left] if text.strip() else ():
            self._left -= 1
            yield Line(first, last, Zone.BODY, index, line.rstrip()[:WIDTH_LIMIT])

    def _as_they_are(
        self, end: int, zone: Zone, index: int, charset: str = "", *, quoted: bool = False
    ) -> Iterator[Line]:
        """Yield the lines up to `end`, one for one; those that quoted-printable has broken are one again."""
        octets, number = self._take(end)
        if number == self._number:
            return
        near = octets[:TEXT_LIMIT].split(b"\n")
        held: list[bytes] = []
        first = number
        for line in near[: max(self._left, 0)]:
            held.append(line)
            number += 1
            if quoted and line.rstrip(b" \t\r").endswith(b"=") and number < self._number:
                continue
            for text in _texts(b"\n".join(held), charset, zone, quoted=quoted):
                self._left -= 1
                yield Line(first, number - 1, zone, index, text)
            held, first = [], number
        if first < self._number:
            what = f"[{_counted(self._number - first, 'line')} that no reader looks at]"
            yield Line(first, self._number - 1, Zone.NOTE, index, what)

    def _take(self, end: int) -> tuple[bytes, int]:
        """Return the octets up to `end` without the newline that ends them, and the number of their first line."""
        first, octets = self._number, bytes(self._octets[self._at : max(end, self._at)])
        self._at = max(end, self._at)
        if not octets:
            return b"", first
        if octets.endswith(b"\n"):
            octets = octets[:-1]
        elif bytes(self._octets[self._at : self._at + 1]) == b"\n":
            self._at += 1
        self._number += octets.count(b"\n") + 1
        return octets, first


def _texts(raw: bytes, charset: str, zone: Zone, *, quoted: bool) -> list[str]:
    text = structure.text_of(structure.decoded(raw, "quoted-printable") if quoted else raw, charset)
    if zone is not Zone.BODY:
        text = structure.decoded_words(text)
    return [each.rstrip()[:WIDTH_LIMIT] for each in text.split("\n")]


def _is_noise(text: str) -> bool:
    return len(_NO_TEXT.findall(text)) * _NO_TEXT_SHARE > len(text)
