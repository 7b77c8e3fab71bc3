"""A figure with its goal beside it, rounds that take turns, and how both are shown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rich.table import Table

T = TypeVar("T")


@dataclass(frozen=True)
class Scale:
    """How much is measured. The goals are meant for the default."""

    rounds: int = 5
    messages: int = 20_000


@dataclass(frozen=True)
class Figure:
    """What was measured, once a round; the median is held to the goal."""

    name: str
    values: list[float]
    goal: float
    unit: str = "x"  # x: times the reference of the same round
    at_most: bool = False  # the goal is a ceiling, not a floor
    beside: Mapping[str, float] = field(default_factory=dict)  # what it was made of, as medians

    @property
    def median(self) -> float:
        """Return the median of the rounds."""
        return rounded(statistics.median(self.values))

    @property
    def met(self) -> bool:
        """Return whether the goal is met."""
        return self.median <= self.goal if self.at_most else self.median >= self.goal

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return {
            "name": self.name,
            "median": self.median,
            "unit": self.unit,
            "goal": f"{'<=' if self.at_most else '>='} {self.goal:g}",
            "met": self.met,
            "rounds": [rounded(value) for value in self.values],
            "beside": {name: rounded(value) for name, value in self.beside.items()},
        }


def rounded(value: float) -> float:
    """Return a number to the four digits that count."""
    return float(f"{value:.4g}")


def medians(**series: Iterable[float]) -> dict[str, float]:
    """Return the median of each series."""
    return {name: statistics.median(values) for name, values in series.items()}


def ratios(ours: Iterable[float], theirs: Iterable[float]) -> list[float]:
    """Return one ratio a round: what the machine did meanwhile met both alike."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def take_turns(contestants: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Let all contestants run once a round, in reverse order every second round; return what each brought."""
    seen: dict[str, list[T]] = {name: [] for name in contestants}
    for number in range(rounds):
        names = list(contestants)
        for name in reversed(names) if number % 2 else names:
            seen[name].append(contestants[name]())
    return seen


def table(figures: Iterable[Figure]) -> Table:
    """Return the figures beside their goals."""
    made = Table("measured", "median", "least", "most", "goal", "")
    for column in made.columns[1:5]:
        column.justify = "right"
    for figure in figures:
        sign = "<=" if figure.at_most else ">="
        numbers = [f"{value:.4g} {figure.unit}" for value in (min(figure.values), max(figure.values))]
        word = "[green]met[/]" if figure.met else "[red]missed[/]"
        goal = f"{sign} {figure.goal:g} {figure.unit}"
        made.add_row(figure.name, f"{figure.median:g} {figure.unit}", *numbers, goal, word)
    return made
