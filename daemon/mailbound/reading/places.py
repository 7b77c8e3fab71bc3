"""A text that stands on several lines, and the way back from a place in it to a line and its characters."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from mailbound.reading import phrases
from mailbound.reading.layout import Line
from mailbound.reading.once import Once

_WORD = re.compile(r"\S+")

Stretch = tuple[int, int, int]
"""The index of a line, and where in its text something begins and ends."""


class Text:
    """Some lines joined by newlines, with the way back from a place in them to line and character."""

    def __init__(self, lines: Sequence[Line], indexes: Sequence[int]) -> None:
        """Take the lines with these indexes."""
        self._lines = lines
        self.indexes = indexes
        texts = [lines[index].text for index in indexes]
        self._begins = list(accumulate((len(text) + 1 for text in texts), initial=0))
        self.joined = "\n".join(texts)
        self.small = phrases.small(self.joined)

    def before(self, end: int) -> Text:
        """Return the lines that begin before the place `end`."""
        return Text(self._lines, self.indexes[: max(bisect_right(self._begins, end - 1), 0)])

    def stretches(self, begin: int, end: int) -> Iterator[Stretch]:
        """Yield the lines from `begin` to `end`, each without the blanks around what is meant of it."""
        at = max(bisect_right(self._begins, begin) - 1, 0)
        while at < len(self.indexes) and self._begins[at] < end:
            index, offset = self.indexes[at], self._begins[at]
            text = self._lines[index].text
            yield stripped(index, text, max(begin - offset, 0), min(end - offset, len(text)))
            at += 1

    def of(self, stretch: Stretch) -> str:
        """Return what stands there."""
        index, begin, end = stretch
        return self._lines[index].text[begin:end]

    def find(self, words: str) -> tuple[int, int] | None:
        """Return where `words` stand, whatever blanks and line ends are between them; None if they do not."""
        begin = self._squeezed.find(words) if words.strip() else -1
        if begin < 0:
            return None
        return self._place(begin), self._place(begin + len(words) - 1) + 1

    @Once
    def _squeezed(self) -> str:
        return " ".join(self.joined.split())

    @Once
    def _words(self) -> tuple[list[int], list[int]]:
        """Return where each word begins: among the squeezed words, and in truth."""
        squeezed: list[int] = []
        begins: list[int] = []
        at = 0
        for match in _WORD.finditer(self.joined):
            squeezed.append(at)
            begins.append(match.start())
            at += len(match[0]) + 1
        return squeezed, begins

    def _place(self, at: int) -> int:
        squeezed, begins = self._words
        word = bisect_right(squeezed, at) - 1
        return begins[word] + at - squeezed[word]


def stripped(index: int, text: str, begin: int, end: int) -> Stretch:
    """Return a stretch of a line without the blanks around it; it is empty if there is nothing else."""
    stretch = text[begin:end]
    begin += len(stretch) - len(stretch.lstrip())
    return index, begin, begin + len(stretch.strip())
