"""A large audience: 50 times the usual messages, so a million by default. One round: it is its own reference."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

import measures
import stage
from figures import Figure, Scale
from mailbound.database import tables
from relays import Sink
from stage import Stage

_TIMES = 50
_CONNECTIONS = 20


@dataclass(frozen=True)
class _Passage:
    """When so many messages had been accepted, by the monotonic clock."""

    count: int
    at: float


def measure(scale: Scale) -> Iterator[Figure]:
    """Return how soon it begins, what it holds in memory, and whether it keeps its pace."""
    people = scale.messages * _TIMES
    with (
        stage.folder() as folder,
        stage.database("sqlite", folder) as url,
        Sink(folder) as sink,
        Stage(folder, port=sink.port, url=url, connections=_CONNECTIONS) as here,
    ):
        here.crowd(people)
        here.start()
        idle = measures.resident_mib(here.pid)
        here.mail("spring")
        passages = _watch(sink, people)
        here.await_sent("spring")
        peak = measures.peak_mib(here.pid)
        [(due,)] = here.rows(sa.select(tables.activity.c.starts_at))
        here.stop()
    beside = {"people": people, "rate": sink.rate}
    late = sink.first - (due.timestamp() - time.time() + time.monotonic())
    yield Figure("large audience: from due to the first message", [late], 5, "s", at_most=True, beside=beside)
    memory = {"idle": idle, "peak": peak}
    name = "large audience: peak memory above idle"
    yield Figure(name, [peak - idle], 60, "MiB", at_most=True, beside=memory)
    first, last = _pace(passages, 0.0, 0.1, people), _pace(passages, 0.9, 1.0, people)
    tenths = {"first_tenth": first, "last_tenth": last}
    yield Figure("large audience: rate of the last tenth / the first", [last / first], 0.9, beside=tenths)


def _watch(sink: Sink, people: int) -> list[_Passage]:
    """Return the course of the sending, a line for every hundredth."""
    passages = []
    for hundredth in range(101):
        goal = max(1, people * hundredth // 100)
        measures.wait(lambda goal=goal: sink.count >= goal, f"message {goal}", every=0.005)
        passages.append(_Passage(sink.count, sink.last))
    return passages


def _pace(passages: list[_Passage], begin: float, end: float, people: int) -> float:
    """Return messages a second between two shares of the whole."""
    first = next(each for each in passages if each.count >= max(1, begin * people))
    last = next(each for each in passages if each.count >= end * people)
    return (last.count - first.count) / max(last.at - first.at, 1e-9)
