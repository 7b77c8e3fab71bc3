"""Facts about one thing, under titles: coloured and folded for a person who looks on, plain in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mailbound.cli import bars, terminal

LONGEST = 500
"""Characters of a text that a person is shown."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A label and what there is to say; without a label it goes on with the one before it."""

    label: str
    text: str
    style: str = ""


def title(text: str) -> None:
    """Print a title, with an empty line before it."""
    bars.line("")
    bars.line(text, "bold underline")


def note(*lines: str) -> None:
    """Print sentences between facts."""
    for line in lines:
        bars.line(line)


def facts(known: Sequence[Fact]) -> None:
    """Print facts, one below the other; one that has nothing to say is left out."""
    shown = [fact for fact in known if fact.text]
    width = max((len(fact.label) for fact in shown), default=0)
    if not sys.stdout.isatty():
        for fact in shown:
            print(f"{terminal.escape(fact.label):<{width}}  {terminal.escape(fact.text)}")
        return
    from rich.table import Table
    from rich.text import Text

    drawn = Table.grid(padding=(0, 2, 0, 0))
    drawn.add_column(no_wrap=True, style="bright_black")
    drawn.add_column(overflow="fold")
    for fact in shown:
        drawn.add_row(Text(terminal.escape(fact.label)), Text(terminal.escape(fact.text), fact.style))
    bars.console().print(drawn)


def cut(text: str) -> str:
    """Return as much of a text as a person reads."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def moment(at: datetime) -> str:
    """Return a moment as a person reads it."""
    return terminal.cell(at)
