"""A second process on the same PostgreSQL, against one alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import figures
import stage
from figures import Figure, Scale
from relays import Sink
from stage import Stage

_CONNECTIONS = 10


def measure(scale: Scale) -> Iterator[Figure]:
    """Return the rate of two processes against that of one."""
    sides = {"two": partial(_rate, 2, scale.messages), "one": partial(_rate, 1, scale.messages)}
    seen = figures.take_turns(sides, scale.rounds)
    ratios = figures.ratios(seen["two"], seen["one"])
    beside = figures.medians(rate_of_two=seen["two"], rate_of_one=seen["one"])
    yield Figure("two processes / one, postgresql", ratios, 1.2, beside=beside)


def _rate(count: int, messages: int) -> float:
    """Return how many messages a second so many daemons send together, each on connections of its own."""
    with stage.folder() as folder, stage.database("postgresql", folder) as url, Sink(folder) as sink:
        with contextlib.ExitStack() as open_stages:
            stages = []
            for number in range(count):
                home = folder / f"node{number}"
                home.mkdir()
                here = Stage(home, port=sink.port, url=url, connections=_CONNECTIONS)
                stages.append(open_stages.enter_context(here))
            stages[0].crowd(messages)
            for here in stages:
                here.start()
            stages[0].mail("spring")
            stages[0].await_sent("spring")
            for here in stages:
                here.stop()
        assert sink.count == messages, f"the sink took {sink.count}, not {messages}"
        return sink.rate
