r"""Which patterns may fit a text, found without trying them: an index over the words that a pattern cannot do without.

A pattern such as `quota( \w+)? (exceeded|reached)` fits no text that lacks "quota", or both of the others, so it need
not be tried on one. From the parsed pattern we take two such sets of words, keep three letters of each word, ask a text
for all its threes at once, and look for the words whose threes it has. A pattern that gives no word is always tried.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

LENGTH = 3  # of a gram: "spf" is a word that rules go by

_MOST = 8  # strings that a piece of a pattern may stand for before only the best of its parts is kept

_PLAIN = r"[^\\^$.|?*+()\[\]{}]"

# The pieces of a pattern: letters in a row, an escape, a set, a bracket or whatever else; and how often it may come.
_PIECE = re.compile(
    rf"""(?: ({_PLAIN}+ (?![?*+{{]) | {_PLAIN}) | \\(x..|u....|.) | \[(\^?\]?(?:\\.|[^\]\\])*)\]
           | (\((?:\?(?:P<\w+>|[:=!>]|<[=!]|[a-z]+\)))?) | (.) )
        ((?:[?*+]|\{{[\d,]+\}})[?+]?)?""",
    re.VERBOSE | re.DOTALL,
)
_Piece = tuple[str, str, str, str, str, str]

# Letters of any case, blanks that are none, conditions, references: too rare to be understood.
_STRANGE = re.compile(r"\(\?(?:[a-z-]*[ix]|[a-z-]+:|\(|P=)")

_PLACES = frozenset("bBAZ^$")
_NOTHING: frozenset[str] = frozenset({""})

Words = frozenset[str]
Found = tuple[Words | None, set[Words]]
"""All the strings that a part of a pattern stands for, if they are few, and the sets that it cannot do without."""


class Index:
    """Tells for a text the numbers of the patterns that may be found in it, as the bits of an integer."""

    def __init__(self, patterns: Sequence[str], samples: Iterable[str]) -> None:
        """Make it; `samples` are texts as they come, by which the rarer threes of a word are told."""
        seen = defaultdict(int, Counter(gram for sample in samples for gram in _grams(sample)))
        masks: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._free = [0, 0]  # the patterns that ask for no first word, and those that ask for no second
        for number, pattern in enumerate(patterns):
            wanted = needed(pattern) if pattern else []
            for place in (0, 1):
                if place < len(wanted):
                    for word in wanted[place]:
                        masks[word][place] |= 1 << number
                else:
                    self._free[place] |= 1 << number
        by_gram: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
        for word, (first, second) in masks.items():
            gram = min(sorted(_grams(word)), key=seen.__getitem__)
            by_gram[gram].append((word, first, second))
        self._by_gram = dict(by_gram)

    def candidates(self, text: str) -> int:
        """Return the patterns that may be found in `text`: bit n stands for the n-th."""
        one, other = self._free
        by_gram = self._by_gram
        for gram in by_gram.keys() & _grams(text):
            for word, first, second in by_gram[gram]:
                if word in text:
                    one |= first
                    other |= second
        return one & other


def bits(number: int) -> Iterator[int]:
    """Yield the places of the bits that are set, the lowest first."""
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


def needed(pattern: str) -> list[Words]:
    """Return at most two sets of words, of each of which one stands in every text that `pattern` fits."""
    if _STRANGE.search(pattern):
        return []
    (_, sets), _ = _either(iter(_PIECE.findall(pattern)))
    return sorted(sets, key=_worth, reverse=True)[:2] if len(sets) > 1 else [*sets]


def _either(pieces: Iterator[_Piece]) -> tuple[Found, str]:
    """Return what the pieces up to the end of their group stand for, and how often that may come."""
    branches: list[Found] = []
    row = _Row()
    for letters, escape, chosen, opened, other, times in pieces:
        if other in {"|", ")"}:
            branches.append(row.found())
            if other == ")":
                return _together(branches), times
            row = _Row()
        elif letters:
            row.add(times, frozenset({letters}))
        elif opened.endswith(("=", "!")):  # it looks around, and takes nothing
            _either(pieces)
        elif opened and not opened.endswith(")"):
            (exact, sets), how_often = _either(pieces)
            row.add(how_often, exact, sets)
        elif not opened:
            row.add(times, _characters(escape, chosen, other))
    branches.append(row.found())
    return _together(branches), ""


def _characters(escape: str, chosen: str, other: str) -> Words | None:
    """Return what an escape, a set or a sign may stand for, None if that is too much."""
    if chosen:
        is_list = chosen[0] != "^" and "\\" not in chosen and "-" not in chosen[1:-1]
        return frozenset(chosen) if is_list else None
    if (escape or other) in _PLACES:
        return _NOTHING
    return frozenset({escape}) if escape and not escape[0].isalnum() else None


class _Row:
    """Pieces one after another."""

    __slots__ = ("_exact", "_run", "_sets")

    def __init__(self) -> None:
        self._exact = True
        self._run = _NOTHING  # what the pieces since the last unknown one stand for
        self._sets: set[Words] = set()

    def add(self, times: str, exact: Words | None, sets: Iterable[Words] = ()) -> None:
        """Add a piece that comes so often."""
        if times.startswith(("?", "*", "{0", "{,")):
            exact = exact | _NOTHING if exact is not None and times[0] == "?" else None
            sets = ()
        elif times:
            sets = {*sets, *_telling(exact or _NOTHING)}
            exact = None
        if sets:
            self._sets.update(sets)
        if exact is not None and len(self._run) * len(exact) <= _MOST:
            self._run = frozenset(a + b for a, b in product(self._run, exact))
            return
        self._exact = False
        self._sets |= _telling(self._run)
        self._run = exact if exact is not None else _NOTHING

    def found(self) -> Found:
        """Return what they stand for together."""
        return (self._run if self._exact else None), self._sets | _telling(self._run)


def _together(branches: list[Found]) -> Found:
    if len(branches) == 1:
        return branches[0]
    exacts = [exact for exact, _ in branches if exact is not None]
    whole = frozenset[str]().union(*exacts) if len(exacts) == len(branches) else None
    best = [max(sets, key=_worth) if len(sets) > 1 else next(iter(sets)) for _, sets in branches if sets]
    together = {frozenset[str]().union(*best)} if len(best) == len(branches) else set()
    return (whole if whole and len(whole) <= _MOST else None), together


def _telling(words: Words) -> set[Words]:
    is_long = len(min(words, key=len)) >= LENGTH or all(map(_is_long, words))
    return {words} if is_long else set()


def _is_long(word: str) -> bool:
    return len(word) >= (LENGTH if word.isascii() else LENGTH - 1)


def _worth(words: Words) -> tuple[int, int, str, str]:
    """Return by what one set tells more than another: long words first, then few; the rest is for a fixed order."""
    return min(*map(len, words), 6), -len(words), min(words), max(words)


def _grams(text: str) -> set[str]:
    grams = {text[at : at + LENGTH] for at in range(len(text) - LENGTH + 1)}
    if text.isascii():
        return grams
    return grams | {text[at : at + LENGTH - 1] for at in range(len(text) - LENGTH + 2)}
