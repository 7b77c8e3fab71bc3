"""A list of phrases as one pattern that is quick to search for.

At each place of a text the standard library tries the alternatives of a pattern one after another, and looks ahead for
a place to try only where each begins with a letter. So they are written anew here, with the same meaning: what each
begins with is taken out of its brackets, and those that begin with the same letter stand together behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_QUANTIFIERS = frozenset("?*+{")
_SPECIAL = frozenset(".|?*+(){}$")
_SIMPLE_SET = re.compile(r"\[([^\\\]^-]+)\]")
_LITERAL = re.compile(r"[^\\^$.|?*+()\[\]{}]|\\[^\w\s]")


def pattern_of(phrases: Iterable[str]) -> str:
    """Return a pattern that finds something where `(?:phrase|phrase|...)` does; which of them it finds may differ."""
    groups: dict[str, list[str]] = {}
    others: list[str] = []
    for phrase in phrases:
        for one in branches(phrase):
            for head in _heads(one):
                letter = _LITERAL.match(head)
                if letter and head[letter.end() :][:1] not in _QUANTIFIERS:
                    groups.setdefault(letter[0], []).append(head[letter.end() :])
                else:
                    others.append(head)
    together = (f"{letter}(?:{'|'.join(rests)})" for letter, rests in groups.items())
    return f"(?:{'|'.join((*together, *others))})"


def branches(pattern: str) -> Iterator[str]:
    """Yield the alternatives of a pattern, as they are divided outside of its brackets."""
    begin = depth = at = 0
    while at < len(pattern):
        if pattern[at] == "[":
            at = _end_of_set(pattern, at)
        elif pattern[at] == "|" and not depth:
            yield pattern[begin:at]
            begin = at + 1
        depth += {"(": 1, ")": -1}.get(pattern[at], 0)
        at += 2 if pattern[at] == "\\" else 1
    yield pattern[begin:]


def _heads(pattern: str) -> Iterator[str]:
    """Yield patterns that mean the same together, each of which begins with a letter where that can be had."""
    if pattern.startswith("(?:"):
        end = _end_of_group(pattern)
        first, rest = [*branches(pattern[3 : end - 1])], pattern[end:]
    elif simple := _SIMPLE_SET.match(pattern):
        first = [f"\\{letter}" if letter in _SPECIAL else letter for letter in simple[1]]
        rest = pattern[simple.end() :]
    elif letter := _LITERAL.match(pattern):
        first, rest = [letter[0]], pattern[letter.end() :]
        if rest[:1] != "?":
            yield pattern
            return
    else:
        yield pattern
        return
    if rest[:1] == "?" and rest[1:2] not in {"?", "+"}:
        first, rest = [*first, ""], rest[1:]
    elif rest[:1] in _QUANTIFIERS:
        yield pattern
        return
    for one in first:
        yield from _heads(one + rest)


def _end_of_group(pattern: str) -> int:
    depth = at = 0
    while True:
        if pattern[at] == "[":
            at = _end_of_set(pattern, at)
        depth += {"(": 1, ")": -1}.get(pattern[at], 0)
        at += 2 if pattern[at] == "\\" else 1
        if not depth:
            return at


def _end_of_set(pattern: str, at: int) -> int:
    """Return where the bracket stands that ends the set which begins at `at`."""
    at += 2 if pattern[at + 1] == "^" else 1
    at += pattern[at] == "]"
    while pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at
