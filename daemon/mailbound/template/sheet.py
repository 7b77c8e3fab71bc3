"""Messages that differ in their values alone: what is the same is said once, the values stand in columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import NamedTuple

MOST_KEPT = 256
"""How many ways through a template are remembered."""


class Part(NamedTuple):
    """A text part of several messages."""

    texts: tuple[str, ...]
    """What the template says, the same in all of them."""
    columns: Sequence[Sequence[str]]
    """What stands between each two texts: a value for each message."""

    def whole(self, number: int) -> str:
        """Return the part of one message."""
        pieces = [
            text
            for column, text in zip(self.columns, self.texts[1:], strict=True)
            for text in (column[number], text)
        ]
        return "".join((self.texts[0], *pieces))


class Sheet(NamedTuple):
    """Several messages."""

    numbers: Sequence[int]
    """Which of those that were asked for these are."""
    subjects: Sequence[str]
    text: Part
    html: Part | None
    """None if the messages have none."""


class Sieve:
    """Parts what a template says itself from what was filled in, in the pieces that Jinja2 made of both."""

    def __init__(self, constants: Iterable[str]) -> None:
        """Take the texts that stand in the template."""
        self._numbers = {text: number for number, text in enumerate(constants)}
        self._kept: dict[tuple[int | None, ...], tuple[tuple[str, ...], list[bool]]] = {}

    def parted(self, pieces: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the template's texts and the values between each two of them."""
        key = tuple(map(self._numbers.get, pieces))
        texts, are_values = self._kept.get(key) or self._keep(key, pieces)
        return texts, tuple(compress(pieces, are_values))

    def _keep(self, key: tuple[int | None, ...], pieces: Sequence[str]) -> tuple[tuple[str, ...], list[bool]]:
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        texts = [""]
        for number, piece in zip(key, pieces, strict=True):
            if number is None:
                texts.append("")
            else:
                texts[-1] += str(piece)
        kept = self._kept[key] = (tuple(texts), [number is None for number in key])
        return kept
