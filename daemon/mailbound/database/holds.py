"""Holds: mass bounces that change nobody until an operator has looked. What counts as one is said by `guard`.

A hold is open while it has bounces that are held. What fits an open hold is held when it is recorded; what came
before it, and changed people already, is taken back into it. A bounce that was in a hold counts for no other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound import guard
from mailbound.database import changes, runs, tally, undoing
from mailbound.database.changes import Cause
from mailbound.database.tables import bounce, domain, hold, run
from mailbound.errors import InputError
from mailbound.guard import By, Crowd, Traits
from mailbound.lifecycle import RunEvent, RunState
from mailbound.model import Action, Disposition

_DEADLY = tuple(category.value for category in guard.DEADLY)
_COUNTED = (Disposition.APPLIED.value, Disposition.NOTED.value, Disposition.HELD.value)
_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Hold:
    """What bounces of a store are held for."""

    id: int
    store_id: int
    by: By
    subject: str
    why: str
    opened_at: datetime

    def fits(self, traits: Traits) -> bool:
        """Return whether a bounce has in common what this hold is about."""
        return traits.of(self.by) == self.subject


def latest(connection: sa.Connection) -> int:
    """Return the number of the latest bounce, 0 if there is none."""
    return connection.execute(sa.select(sa.func.max(bounce.c.id))).scalar() or 0


def counts(connection: sa.Connection, *, since: datetime) -> dict[int, dict[Traits, int]]:
    """Return how many bounces of each store could make an address dead and are in no hold, by their traits."""
    columns = (bounce.c.store_id, bounce.c.run_id, bounce.c.gist, bounce.c.remote_mta, domain.c.name)
    counted: Mapping[Any, int]
    if connection.dialect.name == "postgresql":
        query = _candidates(*columns, sa.func.count(), since=since).group_by(*columns)
        counted = {tuple(traits): count for *traits, count in connection.execute(query)}
    else:  # to group them SQLite would keep all rows in memory, and sort them
        rows: Any = connection.execute(_candidates(*columns, since=since)).cursor
        counted = Counter(rows)
    found: defaultdict[int, dict[Traits, int]] = defaultdict(dict)
    for (store_id, *traits), count in counted.items():
        found[store_id][Traits(*traits)] = count
    return found


def settled(connection: sa.Connection, crowd: Crowd) -> int:
    """Return what a crowd is to be compared with: how much of its runs was tried, or of it at its domain."""
    of_domain = None
    if crowd.by is By.DOMAIN:
        names = sa.select(domain.c.id).where(domain.c.name == crowd.subject)
        of_domain = connection.execute(names).scalar_one_or_none()
    return tally.tried(connection, crowd.run_ids, domain_id=of_domain)


def open_ones(connection: sa.Connection, *, store_id: int | None = None) -> list[Hold]:
    """Return the open holds, of one store or of all, the earliest first."""
    query = sa.select(hold).where(hold.c.settled_at.is_(None)).order_by(hold.c.id)
    if store_id is not None:
        query = query.where(hold.c.store_id == store_id)
    return [_hold(row) for row in connection.execute(query)]


def are_open(store_id: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Return whether a store has open holds, for a statement that looks at something else."""
    return sa.exists().where(hold.c.store_id == store_id, hold.c.settled_at.is_(None))


def place(
    connection: sa.Connection, store_id: int, crowd: Crowd, *, why: str, now: datetime
) -> tuple[Hold, list[int]] | None:
    """Open a hold and halt the runs that it is about; return both, or None if the hold was open already."""
    values = {
        "store_id": store_id,
        "trait": crowd.by,
        "subject": crowd.subject[:255],
        "why": why[:255],
        "opened_at": now,
    }
    insert = changes.upsert(connection, hold).values(values).on_conflict_do_nothing().returning(hold)
    row = connection.execute(insert).one_or_none()
    if row is None:
        return None
    note = f"{why}: {crowd.subject}" if crowd.by is By.TEXT else why
    halted = _halt(connection, crowd.run_ids, why=note, now=now) if guard.halts(crowd.by) else []
    return _hold(row), halted


def _halt(connection: sa.Connection, run_ids: Iterable[int], *, why: str, now: datetime) -> list[int]:
    send = sa.select(run.c.id).where(run.c.id.in_(run_ids), run.c.state == RunState.SENDING)
    ids = list(connection.execute(send.order_by(run.c.id).with_for_update()).scalars())
    for run_id in ids:
        runs.move(connection, run_id, RunEvent.HALT, now=now, note=why)
    return ids


def gather(connection: sa.Connection, into: Hold, *, since: datetime, now: datetime) -> int:
    """Take some of the bounces that fit a hold into it, and take back what they changed; return how many.

    Call it until it returns 0: each call is one short transaction.
    """
    columns = (bounce.c.id, bounce.c.run_id, bounce.c.gist, bounce.c.remote_mta, domain.c.name)
    query = _candidates(*columns, since=since).where(bounce.c.store_id == into.store_id)
    if into.by is By.TEXT:
        query = query.where(bounce.c.gist == into.subject)
    fitting = (number for number, *traits in connection.execute(query) if into.fits(Traits(*traits)))
    ids = [number for number, _ in zip(fitting, range(_AT_ONCE), strict=False)]
    if ids:
        undoing.undo_bounces(connection, ids, cause=Cause("hold"), now=now)
        values = {"disposition": Disposition.HELD, "hold_id": into.id, "why": into.why}
        connection.execute(bounce.update().where(bounce.c.id.in_(ids)).values(values))
    return len(ids)


def released(connection: sa.Connection, hold_id: int) -> list[int]:
    """Return the bounces of a hold that count now. Raises InputError if there are none."""
    counted = (Disposition.APPLIED.value, Disposition.NOTED.value)
    query = sa.select(bounce.c.id).where(bounce.c.hold_id == hold_id, bounce.c.disposition.in_(counted))
    ids = list(connection.execute(query.order_by(bounce.c.id)).scalars())
    if not ids:
        raise InputError(f"nothing of hold {hold_id} was released, or it was taken back already")
    return ids


def close(connection: sa.Connection, ids: Iterable[int], *, who: str, now: datetime) -> None:
    """End those of the holds that have nothing left to decide."""
    left = sa.exists().where(bounce.c.hold_id == hold.c.id, bounce.c.disposition == Disposition.HELD)
    over = hold.update().where(hold.c.id.in_(list(ids)), hold.c.settled_at.is_(None), sa.not_(left))
    connection.execute(over.values(settled_at=now, who=who))


def _candidates(*columns: sa.ColumnElement[Any], since: datetime) -> sa.Select[Any]:
    """Return a query over what could make an address dead and is in no hold."""
    return (
        sa.select(*columns)
        .join(domain, domain.c.id == bounce.c.domain_id)
        .where(
            bounce.c.at >= since,
            bounce.c.hold_id.is_(None),
            bounce.c.run_id.is_not(None),
            bounce.c.action == Action.FAILED,
            bounce.c.permanent,
            bounce.c.category.in_(_DEADLY),
            bounce.c.disposition.in_(_COUNTED),
        )
    )


def _hold(row: Any) -> Hold:
    return Hold(row.id, row.store_id, By(row.trait), row.subject, row.why, row.opened_at)


def first_fitting(among: Sequence[Hold], traits: Traits) -> Hold | None:
    """Return the first hold that a bounce fits, or None."""
    return next((each for each in among if each.fits(traits)), None)
