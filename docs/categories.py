"""Write CATEGORIES.md from the tables that the daemon goes by: `python docs/categories.py`."""

# ruff: noqa: INP001 - a script beside the pages
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mailbound import classify
from mailbound.classify import tables
from mailbound.model import Category

PAGE = Path(__file__).with_name("CATEGORIES.md")

INTRODUCTION = """\
# What our categories are called elsewhere

Every verdict has a category, and a category has a fault: whose it is. Only the faults `address` and `mailbox` speak
about the recipient. This page is for people who come from other bounce readers, from Amazon SES, or from the status
codes of RFC 3463. It is written by `docs/categories.py` from `categories.toml`, `rules.toml` and `status_codes.toml`.

- **Reason** is the word of the vocabulary that Sisimai made common. `mailbound bounce read` prints it. Where a rule
  knows a narrower word than its category has, that word stands in the second table.
- **SES** is Amazon's bounceType/bounceSubType, first of a permanent failure, then of a transient one.
- **Status** names the codes that say the same; X is 4 or 5. A text may say otherwise, and then counts for more.
"""


def page() -> str:
    """Return the whole page."""
    return "\n".join([INTRODUCTION, *_categories(), "", *_reasons(), "", *_codes(), ""])


def _categories() -> Iterator[str]:
    yield "## Categories\n"
    rows = (
        (f"`{category}`", category.fault, f"`{row.reason}`", *row.ses, ", ".join(row.status), row.meaning)
        for category, row in tables.meanings().items()
    )
    yield from _table(("category", "fault", "reason", "SES, 5.x.x", "SES, 4.x.x", "status", "meaning"), rows)


def _reasons() -> Iterator[str]:
    yield "## Reasons\n"
    yield "How each word of the shared vocabulary comes about.\n"
    known = classify.rules()
    found: dict[str, dict[Category, list[str]]] = {}
    for rule in known.by_name.values():
        word = rule.reason or tables.meanings()[rule.category].reason
        found.setdefault(word, {}).setdefault(rule.category, []).append(rule.name)
    rows = (
        (f"`{word}`", f"`{category}`", ", ".join(f"`{name}`" for name in names))
        for word in sorted(found)
        for category, names in found[word].items()
    )
    yield from _table(("reason", "category", "rules"), rows)


def _codes() -> Iterator[str]:
    yield "## Status codes\n"
    yield f"The registry at IANA as of {tables.registry_date()}, for replies whose text tells nothing.\n"
    rows = (
        (row.rule.partition(":")[2], row.name, row.source, f"`{row.category}`", f"`{_word(row)}`")
        for row in tables.codes()
    )
    yield from _table(("code", "name", "source", "category", "reason"), rows)


def _word(row: tables.Code) -> str:
    return row.reason or tables.meanings()[row.category].reason


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
