"""How many deliveries of a run stand where, kept as deltas in the transaction that moves them.

Open states count as `open`. A row belongs to one node, so that no two hosts wait for each other.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from mailbound import lifecycle, tokens
from mailbound.database import bulk, changes
from mailbound.database.tables import delivery, tally
from mailbound.lifecycle import DeliveryState

OPEN = "open"
_UNTRIED = (
    OPEN,
    DeliveryState.SKIPPED.value,
    DeliveryState.FAILED.value,
    DeliveryState.CANCELLED.value,
)


class Place(NamedTuple):
    """Where a delivery is counted."""

    run_id: int
    domain_id: int


class Moves:
    """The deltas of one transaction."""

    def __init__(self) -> None:
        """Start with none."""
        self._deltas: Counter[tuple[int, int, str]] = Counter()

    def enter(self, run_id: int, domain_id: int, state: DeliveryState, count: int = 1) -> None:
        """Count deliveries that are new in `state`."""
        self._deltas[run_id, domain_id, outcome(state)] += count

    def move(self, run_id: int, domain_id: int, before: DeliveryState, after: DeliveryState) -> None:
        """Count a delivery that went from one state to another."""
        self._deltas[run_id, domain_id, outcome(before)] -= 1
        self._deltas[run_id, domain_id, outcome(after)] += 1

    def write(self, connection: sa.Connection, *, node_id: int, now: datetime) -> None:
        """Add the deltas to the table."""
        day = tokens.day_number(now)
        rows = [
            (run_id, domain_id, name, day, node_id, count)
            for (run_id, domain_id, name), count in sorted(self._deltas.items())
            if count
        ]
        if rows:
            _ADDED.execute(connection, rows=json.dumps(rows))
        self._deltas.clear()


def shift(
    connection: sa.Connection,
    places: Iterable[Place],
    *,
    before: DeliveryState,
    after: DeliveryState,
    node_id: int,
    now: datetime,
) -> None:
    """Count deliveries, each at its place, that went all from one state to the same other one."""
    by_run: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for run_id, domain_id in places:
        by_run[run_id][domain_id] += 1
    names = {"before": outcome(before), "after": outcome(after)}
    day = tokens.day_number(now)
    for run_id, counts in sorted(by_run.items()):
        _SHIFTED.execute(connection, **names, of_run=run_id, counts=json.dumps(counts), day=day, node=node_id)


def _shifted(connection: sa.Connection) -> sa.Insert:
    given = bulk.mapping(connection, "counts", tally.c.domain_id.type, tally.c.count.type)
    ways = shares("before", "after")
    rows = sa.select(
        sa.bindparam("of_run", type_=tally.c.run_id.type),
        given.c.key,
        ways.c.outcome,
        sa.bindparam("day", type_=tally.c.day.type),
        sa.bindparam("node", type_=tally.c.node_id.type),
        given.c.value * ways.c.sign,
    )
    return adding(connection, rows)


_SHIFTED = bulk.Query(_shifted)


def shares(before: str, after: str) -> sa.Subquery:
    """Return what a move does to two outcomes, the parameters `before` and `after`: one more here, one less there."""
    gain, loss = (
        sa.select(
            sa.bindparam(name, type_=tally.c.outcome.type).label("outcome"),
            sa.literal_column(sign).label("sign"),
        )
        for name, sign in ((after, "1"), (before, "-1"))
    )
    return gain.union_all(loss).subquery("way")


def adding(connection: sa.Connection, rows: sa.Select[Any]) -> sa.Insert:
    """Return what adds deltas to the table; they have its columns in the order of COLUMNS."""
    insert = changes.upsert(connection, tally)
    # Without a WHERE, SQLite takes ON CONFLICT for a join.
    return insert.from_select(COLUMNS, rows.where(sa.true())).on_conflict_do_update(
        index_elements=list(tally.primary_key), set_={"count": tally.c.count + insert.excluded.count}
    )


def _added(connection: sa.Connection) -> sa.Insert:
    given = bulk.table(connection, "rows", **{name: tally.c[name].type for name in COLUMNS})
    return adding(connection, sa.select(*given.c))


COLUMNS = ("run_id", "domain_id", "outcome", "day", "node_id", "count")
_ADDED = bulk.Query(_added)


def outcome(state: DeliveryState) -> str:
    """Return the name under which a state is counted."""
    return OPEN if state in lifecycle.OPEN else state.value


def of_run(connection: sa.Connection, run_id: int) -> dict[str, int]:
    """Return how many deliveries of a run stand where; outcomes without any are left out."""
    counts = (
        sa.select(tally.c.outcome, sa.func.sum(tally.c.count))
        .where(tally.c.run_id == run_id)
        .group_by(tally.c.outcome)
    )
    return {name: int(count) for name, count in connection.execute(counts) if count}


def tried(connection: sa.Connection, run_ids: Collection[int], *, domain_id: int | None = None) -> int:
    """Return how many deliveries of some runs were tried and are settled, of all or of one domain."""
    query = sa.select(sa.func.coalesce(sa.func.sum(tally.c.count), 0)).where(
        tally.c.run_id.in_(run_ids), tally.c.outcome.not_in(_UNTRIED)
    )
    if domain_id is not None:
        query = query.where(tally.c.domain_id == domain_id)
    return int(connection.execute(query).scalar_one())


def differences(connection: sa.Connection) -> list[tuple[int, str, int, int]]:
    """Return (run, outcome, tallied, counted) where the tally is not the sum of the states; reads everything."""
    state = sa.case((delivery.c.state.in_(tuple(lifecycle.OPEN)), sa.literal(OPEN)), else_=delivery.c.state)
    counted = {
        (run_id, name): count
        for run_id, name, count in connection.execute(
            sa.select(delivery.c.run_id, state, sa.func.count()).group_by(delivery.c.run_id, state)
        )
    }
    tallied = {
        (run_id, name): int(count)
        for run_id, name, count in connection.execute(
            sa.select(tally.c.run_id, tally.c.outcome, sa.func.sum(tally.c.count)).group_by(
                tally.c.run_id, tally.c.outcome
            )
        )
        if count
    }
    return [
        (run_id, name, tallied.get((run_id, name), 0), counted.get((run_id, name), 0))
        for run_id, name in sorted(counted.keys() | tallied.keys())
        if tallied.get((run_id, name), 0) != counted.get((run_id, name), 0)
    ]
