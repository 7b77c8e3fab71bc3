"""The two tables beside the rules: what a code alone means, and what our categories are called elsewhere."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from typing import Any

from mailbound.model import Category
from mailbound.status import StatusCode

SOFT = frozenset({Category.MAILBOX_FULL, Category.EXPIRED, Category.RATE})
"""What a code of these says is transient, whatever its class: it passes, or we have to mend it."""

_STATUS = re.compile(r"([45X])\.(\d{1,3})\.(\d{1,3})(?:-(\d{1,3}))?\Z")


@dataclass(frozen=True, slots=True)
class Code:
    """What a status code or a reply code means where no text says more."""

    rule: str  # the name that stands in a verdict
    status: frozenset[StatusCode]
    code: frozenset[int]
    name: str
    source: str
    category: Category
    reason: str


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a category is called elsewhere."""

    reason: str
    ses: tuple[str, str]  # Amazon's bounceType/bounceSubType of a permanent and of a transient failure
    status: tuple[str, ...]
    meaning: str


@cache
def reasons() -> frozenset[str]:
    """Return the vocabulary of reasons that bounce readers share."""
    return frozenset(_read("categories.toml")["vocabulary"]["reasons"].split())


@cache
def meanings() -> Mapping[Category, Meaning]:
    """Return what each category is called elsewhere."""
    return {
        Category(name): Meaning(
            known_reason(row["reason"]), (row["ses"][0], row["ses"][1]), tuple(row["status"]), row["meaning"]
        )
        for name, row in _read("categories.toml")["category"].items()
    }


def codes() -> Iterator[Code]:
    """Yield what codes alone say; of two about one code the later holds."""
    read = _read("status_codes.toml")
    for table in ("registry", "providers"):
        for written, *rest in read[table]:
            for each in written.split():
                yield _code(f"{table}:{each}", rest, status=frozenset(status_codes(each)))
    for written, *rest in read["replies"]:
        for each in written.split():
            yield _code(f"reply:{each}", rest, code=frozenset({int(each)}))


def registry_date() -> date:
    """Return the day of the registry that we know."""
    updated: date = _read("status_codes.toml")["iana"]["updated"]
    return updated


def status_codes(text: str) -> list[StatusCode]:
    """Return the codes that `5.1.1`, `X.1.1` or `X.7.606-649` stands for; X is 4 and 5. Raises ValueError."""
    match = _STATUS.match(text)
    if not match:
        raise ValueError(f"{text!r} is no status code; one is written 5.1.1, or X.1.1 for 4.1.1 and 5.1.1")
    classes = (4, 5) if match[1] == "X" else (int(match[1]),)
    details = range(int(match[3]), int(match[4] or match[3]) + 1)
    return [StatusCode(class_, int(match[2]), detail) for class_ in classes for detail in details]


def known_reason(word: str) -> str:
    """Return `word` if it stands in the shared vocabulary, or is empty. Raises ValueError."""
    if word and word not in reasons():
        raise ValueError(f"{word!r} is no reason; there are {', '.join(sorted(reasons()))}")
    return word


def _code(
    rule: str,
    rest: list[str],
    *,
    status: frozenset[StatusCode] = frozenset(),
    code: frozenset[int] = frozenset(),
) -> Code:
    name, source, category, *reason = rest
    return Code(rule, status, code, name, source, Category(category), known_reason("".join(reason)))


def _read(name: str) -> Mapping[str, Any]:
    return tomllib.loads(resources.files("mailbound").joinpath(name).read_text("utf-8"))
