"""Tables with bars: coloured for a person who looks on, plain and aligned for a pipe."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mailbound.cli import terminal

WIDTH = 100
"""No table is wider, so that the eye finds its way from the first column to the last."""

_NARROWEST, _WIDEST = 6, 24


@dataclass(frozen=True, slots=True)
class Bar:
    """A cell that is drawn as a bar, from 0 to 1."""

    share: float
    style: str = "cyan"


@dataclass(frozen=True, slots=True)
class Styled:
    """A cell that is coloured where there are colours."""

    value: Any
    style: str


def table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], *, total: Sequence[Any] = (), title: str = ""
) -> None:
    """Print a table whose cells may be bars, with a line for the total below a rule."""
    if not sys.stdout.isatty():
        plain = [[_plain(value) for value in row] for row in (*rows, total) if row]
        terminal.table(columns, plain, title=title)
        return
    _draw(columns, rows, total, title)


def percent(share: float | None) -> str:
    """Return a share as a person reads it: `12.34%`; nothing where nobody knows it."""
    return "" if share is None else f"{share:.2%}"


def line(text: str, style: str = "") -> None:
    """Print one line, escaped; on a terminal it is coloured and folded at the width of a table."""
    if not sys.stdout.isatty():
        terminal.say(text)
        return
    from rich.text import Text

    console().print(Text(terminal.escape(text), style))


def _plain(value: Any) -> Any:
    if isinstance(value, Bar):
        return terminal.bar(value.share, width=_WIDEST)
    return value.value if isinstance(value, Styled) else value


def _draw(columns: Sequence[str], rows: Sequence[Sequence[Any]], total: Sequence[Any], title: str) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(
        box=box.SIMPLE_HEAD,
        title=Text(title, "bold") if title else None,
        title_justify="left",
        pad_edge=False,
    )
    width = _bar_width(columns, [*rows, total])
    for index, name in enumerate(columns):
        values = [_plain(row[index]) for row in rows]
        right = bool(values) and all(_is_number(value) for value in values)
        bars = any(isinstance(row[index], Bar) for row in rows)
        drawn.add_column(
            Text(name),
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=right or bars,
            min_width=width if bars else None,
        )
    for number, row in enumerate(rows, 1):
        drawn.add_row(
            *(_text(value, width) for value in row), end_section=bool(total) and number == len(rows)
        )
    if total:
        drawn.add_row(*(_text(value, width) for value in total), style="bold")
    console().print(drawn)


def _text(value: Any, width: int) -> Any:
    from rich.text import Text

    if isinstance(value, Bar):
        return Text(terminal.bar(value.share, width=width), value.style)
    if isinstance(value, Styled):
        return Text(terminal.cell(value.value), value.style)
    return Text(terminal.cell(value))


def _bar_width(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> int:
    """Return how wide bars may be, so that the table still fits."""
    used = bars = 0
    for index, name in enumerate(columns):
        values = [row[index] for row in rows if row]
        if any(isinstance(value, Bar) for value in values):
            bars += 1
        else:
            used += max([len(name), *(len(terminal.cell(_plain(value))) for value in values)])
    free = _columns() - used - 3 * len(columns)
    return min(max(free // max(bars, 1), _NARROWEST), _WIDEST)


def _is_number(value: Any) -> bool:
    text = terminal.cell(value)
    return not text or text.replace(",", "").replace(".", "").removesuffix("%").isdecimal()


def _columns() -> int:
    return min(shutil.get_terminal_size().columns, WIDTH)


def console() -> Any:
    """Return the console of standard output, no wider than a table, which takes every text as it is."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, width=_columns())
