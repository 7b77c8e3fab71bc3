r"""Which patterns may fit a text, found without trying them: an index over the words that a pattern cannot do without.

A pattern such as `quota( \w+)? (exceeded|reached)` fits no text that lacks "quota", or both of the others, so it need
not be tried on one. From the parsed pattern we take two such sets of words, keep three letters of each word, ask a text
for all its threes at once, and look for the words whose threes it has. A pattern that gives no word is always tried.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, product
from re import _parser as parser  # type: ignore[attr-defined]  # the only parser of patterns; a test watches it
from typing import Any

LENGTH = 3  # of a gram: "spf" is a word that rules go by

_MOST = 48  # strings that a piece of a pattern may stand for before only the best of its parts is kept

Words = frozenset[str]


class Index:
    """Tells for a text the numbers of the patterns that may be found in it, as the bits of an integer."""

    def __init__(self, patterns: Sequence[str], samples: Iterable[str]) -> None:
        """Make it; `samples` are texts as they come, by which the rarer threes of a word are told."""
        seen = Counter(gram for sample in samples for gram in _grams(sample))
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
            gram = min(_grams(word), key=lambda each: (seen[each], each))
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
    parsed = parser.parse(pattern)
    if parsed.state.flags & re.IGNORECASE:
        return []
    return sorted(_of(parsed)[1], key=_worth, reverse=True)[:2]


def _of(items: Iterable[tuple[Any, Any]]) -> tuple[Words | None, set[Words]]:
    """Return all the strings that a sequence stands for, if they are few, and the sets that it cannot do without."""
    exact = True
    run: Words = frozenset({""})  # what the pieces since the last unknown one stand for
    sets: set[Words] = set()
    for operator, argument in _joined(items):
        here, needs = _piece(operator, argument)
        sets |= needs
        if here is not None and len(run) * len(here) <= _MOST:
            run = frozenset(a + b for a, b in product(run, here))
            continue
        exact = False
        sets |= _telling(run)
        run = here if here is not None else frozenset({""})
    return (run if exact else None), sets | _telling(run)


def _joined(items: Iterable[tuple[Any, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield the pieces of a pattern, letters in a row as one."""
    for letters, pieces in groupby(items, key=lambda item: item[0] is parser.LITERAL):
        if letters:
            yield "LITERAL", "".join(chr(code) for _, code in pieces)
        else:
            yield from ((str(operator), argument) for operator, argument in pieces)


def _piece(operator: str, argument: Any) -> tuple[Words | None, set[Words]]:
    match operator:
        case "LITERAL":
            return frozenset({argument}), set()
        case "AT" | "ASSERT" | "ASSERT_NOT":
            return frozenset({""}), set()
        case "IN" if all(str(each) == "LITERAL" for each, _ in argument):
            return frozenset(chr(code) for _, code in argument), set()
        case "SUBPATTERN" if not argument[1] & re.IGNORECASE:
            return _of(argument[-1])
        case "BRANCH":
            return _branches([_of(each) for each in argument[1]])
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            return _repeated(*argument)
        case _:
            return None, set()


def _branches(branches: list[tuple[Words | None, set[Words]]]) -> tuple[Words | None, set[Words]]:
    exacts = [exact for exact, _ in branches if exact is not None]
    whole = frozenset[str]().union(*exacts) if len(exacts) == len(branches) else None
    best = [max(sets, key=_worth) for _, sets in branches if sets]
    together = {frozenset[str]().union(*best)} if len(best) == len(branches) else set()
    return (whole if whole and len(whole) <= _MOST else None), together


def _repeated(least: int, most: int, items: Any) -> tuple[Words | None, set[Words]]:
    exact, sets = _of(items)
    if least == 0:
        return (exact | {""} if exact is not None and most == 1 else None), set()
    return (exact if least == most == 1 else None), sets


def _telling(words: Words) -> set[Words]:
    return (
        {words} if all(len(word) >= (LENGTH if word.isascii() else LENGTH - 1) for word in words) else set()
    )


def _worth(words: Words) -> tuple[int, int, str, str]:
    """Return by what one set tells more than another: long words first, then few; the rest is for a fixed order."""
    return min(*map(len, words), 6), -len(words), min(words), max(words)


def _grams(text: str) -> set[str]:
    grams = {text[at : at + LENGTH] for at in range(len(text) - LENGTH + 1)}
    if text.isascii():
        return grams
    return grams | {text[at : at + LENGTH - 1] for at in range(len(text) - LENGTH + 2)}
