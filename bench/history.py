"""A database with years of old deliveries, 500 times the usual messages (ten million by default), against an empty one.

The old deliveries are written by SQL into an SQLite file that no daemon has open yet.
"""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import sqlalchemy as sa

import figures
import measures
import stage
from figures import Figure, Scale
from mailbound.database import tables
from relays import Sink
from stage import Stage

_RUNS = 500
"""So many old runs, each of which went to everybody."""

_LONG_AGO = datetime(2024, 1, 1, 9, tzinfo=UTC)
_CONNECTIONS = 10
_QUIET_SECONDS = 1.0
_SECONDS = 5
"""How long a run that is to be paused would take: commands need a moment to start."""

_STEERED_SHARE = 20
"""A run is paused once it has sent this part of all."""

_OLD = """
INSERT INTO delivery (run_id, recipient_id, address_id, domain_id, state, attempt, reply, marked_at, settled_at)
SELECT :run, r.id, r.address_id, a.domain_id, 'accepted', 1, '250 2.0.0 Ok: queued', :at, :at
FROM recipient r JOIN address a ON a.id = r.address_id ORDER BY r.id
"""
_TALLY = """
INSERT INTO tally (run_id, domain_id, outcome, day, node_id, count)
SELECT run_id, domain_id, state, :day, 1, count(*) FROM delivery WHERE run_id = :run GROUP BY run_id, domain_id
"""


@dataclass(frozen=True)
class Lived:
    """What one round of a daemon brought."""

    ready: float
    rate: float


def measure(scale: Scale) -> Iterator[Figure]:
    """Return the rate against an empty database, the start, and how soon a run obeys."""
    with stage.folder() as full, stage.folder() as empty:
        _build(full, scale.messages, runs=_RUNS)
        _build(empty, scale.messages, runs=0)
        sides: dict[str, Callable[[], Lived]] = {
            "full": partial(_live, full, scale.messages),
            "empty": partial(_live, empty, scale.messages),
        }
        seen = figures.take_turns(sides, scale.rounds)
        rates = {name: [each.rate for each in lived] for name, lived in seen.items()}
        old = {"old_deliveries": scale.messages * _RUNS}
        beside = old | figures.medians(rate=rates["full"], empty_rate=rates["empty"])
        name = "old deliveries: rate / that with an empty database"
        yield Figure(name, figures.ratios(rates["full"], rates["empty"]), 0.9, beside=beside)
        ready = [each.ready for each in seen["full"]]
        beside = figures.medians(empty=[each.ready for each in seen["empty"]])
        yield Figure("old deliveries: start to READY", ready, 2, "s", at_most=True, beside=beside)
        late = [_steer(full, scale.messages) for _ in range(scale.rounds)]
        for number, word in enumerate(("pause", "cancel")):
            values = [each[number] for each in late]
            name = f"old deliveries: last message after `activity {word}` has ended"
            yield Figure(name, values, 1, "s", at_most=True)


def _build(folder: Path, people: int, *, runs: int) -> None:
    """Make a database of people, with so many old runs that went to all of them."""
    with Stage(folder, port=9) as here:
        here.crowd(people)
        here.schedule("past", starts_at=None, cron="0 9 * * *")
        with here.database.begin() as connection:
            connection.execute(tables.activity.update().values(ended_at=_LONG_AGO))
            activity_id = connection.execute(sa.select(tables.activity.c.id)).scalar_one()
            for number in range(runs):
                moment = _LONG_AGO + timedelta(days=number)
                values = dict.fromkeys(("occurrence_at", "started_at", "frozen_at", "finished_at"), moment)
                values |= {"id": number + 1, "activity_id": activity_id, "state": "sent"}
                connection.execute(tables.run.insert().values(values))
    with contextlib.closing(sqlite3.connect(folder / "mailbound.db")) as connection:
        # Everything in memory until the end: it is made once, and if the machine dies it is made again.
        for pragma in ("journal_mode = MEMORY", "synchronous = OFF", "cache_size = -3000000"):
            connection.execute(f"PRAGMA {pragma}")
        for number in range(1, runs + 1):
            connection.execute(_OLD, {"run": number, "at": "2025-01-01 09:00:00.000000"})
            connection.execute(_TALLY, {"run": number, "day": 20_000})
        connection.commit()
        connection.execute("ANALYZE")
        connection.execute("PRAGMA journal_mode = WAL")


def _stage(folder: Path, port: int, *, rate: int = 0) -> Stage:
    outbound = f'port = {port}\ntls = "insecure"\nrate = {rate}'
    return Stage(folder, port=port, outbound=outbound, connections=_CONNECTIONS)


def _live(folder: Path, people: int) -> Lived:
    """Start a daemon, and let it mail everybody once more."""
    with stage.folder() as place, Sink(place) as sink, _stage(folder, sink.port) as here:
        ready = _start(here)
        activity = f"again-{time.time_ns()}"
        here.mail(activity)
        here.await_sent(activity)
        here.stop()
        assert sink.count == people, f"the sink took {sink.count}, not {people}"
        return Lived(ready, sink.rate)


def _start(here: Stage) -> float:
    """Start the daemon, and return how many seconds it took to tell systemd that it is ready."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        path = str(here.folder / "notify")
        Path(path).unlink(missing_ok=True)
        notices.bind(path)
        notices.settimeout(measures.PATIENCE_SECONDS)
        here.environment["NOTIFY_SOCKET"] = path
        begun = time.monotonic()
        here.launch()
        while b"READY=1" not in notices.recv(4096):
            pass
        return time.monotonic() - begun


def _steer(folder: Path, people: int) -> tuple[float, float]:
    """Return how many seconds after `pause`, and then after `cancel`, the last message was accepted."""
    with (
        stage.folder() as place,
        Sink(place) as sink,
        _stage(folder, sink.port, rate=max(1, people // _SECONDS)) as here,
    ):
        _start(here)
        activity = f"steered-{time.time_ns()}"
        here.mail(activity)
        late = []
        for word in ("pause", "cancel"):
            if late:
                here.cli("activity", "resume", activity)
            goal = sink.count + max(1, people // _STEERED_SHARE)
            measures.wait(lambda goal=goal: sink.count >= goal, "some messages")
            here.cli("activity", word, activity)
            ended = time.monotonic()
            _await_quiet(sink)
            late.append(max(0.0, sink.last - ended))
        assert sink.count < people, "all was sent before the cancel: give it more people"
        here.stop()
        return late[0], late[1]


def _await_quiet(sink: Sink) -> None:
    """Return when nothing was accepted for a while."""
    asked = time.monotonic()
    measures.wait(lambda: time.monotonic() - max(sink.last, asked) > _QUIET_SECONDS, "silence")
