"""Which rules may fit a text, found without trying them: an index over the letters that a pattern cannot do without.

A pattern such as `quota (exceeded|reached)` fits no text that lacks "quota", so it need not be tried on one. From the
parsed pattern we take a set of strings of which one stands in whatever it fits, keep three letters of each, and ask
a text for all its threes at once. A pattern from which nothing can be taken is always tried.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from re import _parser as parser  # type: ignore[attr-defined]  # the only parser of patterns; a test watches it
from typing import Any

LENGTH = 3  # of a gram: "spf" is a word that rules go by

_MOST = 48  # strings that a piece of a pattern may stand for before only the best of its parts is kept


class Index:
    """Tells for a text the numbers of the patterns that may be found in it, as the bits of an integer."""

    def __init__(self, patterns: Sequence[re.Pattern[str] | None], samples: Iterable[str]) -> None:
        """Make it; `samples` are texts as they come, by which the rarer threes of a word are told."""
        seen = Counter(gram for sample in samples for gram in _grams(sample))
        self._always = 0
        self._by_gram: dict[str, int] = {}
        for number, pattern in enumerate(patterns):
            words = needed(pattern) if pattern else ()
            if not words:
                self._always |= 1 << number
            for word in words:
                gram = min(_grams(word), key=lambda each: (seen[each], each))
                self._by_gram[gram] = self._by_gram.get(gram, 0) | 1 << number

    def candidates(self, text: str) -> int:
        """Return the patterns that may be found in `text`: bit n stands for the n-th."""
        found = self._always
        of = self._by_gram
        for gram in of.keys() & _grams(text):
            found |= of[gram]
        return found


def bits(number: int) -> Iterator[int]:
    """Yield the places of the bits that are set, the lowest first."""
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


def needed(pattern: re.Pattern[str]) -> frozenset[str]:
    """Return strings of which one stands in every text that `pattern` fits; none if it cannot be told."""
    if pattern.flags & re.IGNORECASE:
        return frozenset()
    exact, best = _of(parser.parse(pattern.pattern, pattern.flags & re.VERBOSE))
    return frozenset(_better(best, exact) or ())


_Strings = frozenset[str] | None


def _of(items: Iterable[tuple[Any, Any]]) -> tuple[_Strings, _Strings]:
    """Return all the strings that a sequence stands for, if they are few, and the best that it cannot do without."""
    exact: _Strings = frozenset({""})
    run: _Strings = frozenset({""})  # what the pieces since the last unknown one stand for
    best: _Strings = None
    for operator, argument in items:
        here, needs = _piece(str(operator), argument)
        best = _better(best, needs)
        run, broken = _joined(run, here)
        if broken is not None:
            best = _better(best, broken)
            exact = None
        if exact is not None:
            exact = run
    return exact, _better(best, run)


def _joined(run: _Strings, here: _Strings) -> tuple[_Strings, _Strings]:
    """Return the run with one more piece, and the run that ended where it could not go on."""
    if here is None:
        return frozenset({""}), run
    if run is not None and len(run) * len(here) <= _MOST:
        return frozenset(a + b for a, b in product(run, here)), None
    return here, run


def _piece(operator: str, argument: Any) -> tuple[_Strings, _Strings]:
    match operator:
        case "LITERAL":
            return frozenset({chr(argument)}), None
        case "AT" | "ASSERT" | "ASSERT_NOT":
            return frozenset({""}), None
        case "IN":
            return _set(argument), None
        case "SUBPATTERN" if not argument[1] & re.IGNORECASE:
            return _of(argument[-1])
        case "BRANCH":
            return _branches([_of(each) for each in argument[1]])
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            return _repeated(*argument)
        case _:
            return None, None


def _set(argument: Any) -> _Strings:
    if all(str(operator) == "LITERAL" for operator, _ in argument):
        return frozenset(chr(code) for _, code in argument)
    return None


def _branches(branches: list[tuple[_Strings, _Strings]]) -> tuple[_Strings, _Strings]:
    exacts: set[str] = set()
    bests: set[str] = set()
    exact_known = best_known = True
    for exact, best in branches:
        chosen = _better(best, exact)
        exact_known = exact_known and exact is not None
        best_known = best_known and chosen is not None
        exacts.update(exact or ())
        bests.update(chosen or ())
    few = exact_known and len(exacts) <= _MOST
    return (frozenset(exacts) if few else None), (frozenset(bests) if best_known else None)


def _repeated(least: int, most: int, items: Any) -> tuple[_Strings, _Strings]:
    exact, best = _of(items)
    if least == 0:
        return (exact | {""} if exact is not None and most == 1 else None), None
    return (exact if least == most == 1 else None), _better(best, exact)


def _better(one: _Strings, other: _Strings) -> _Strings:
    """Return which of two sets tells more, None if neither tells anything: long strings first, then few."""
    known = [each for each in (one, other) if each and min(map(len, each)) >= LENGTH]
    return max(known, key=lambda each: (min(*map(len, each), 5), -len(each)), default=None)


def _grams(text: str) -> set[str]:
    return {text[at : at + LENGTH] for at in range(len(text) - LENGTH + 1)}
