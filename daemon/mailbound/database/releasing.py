"""What is held, and what an operator makes of it: released is decided now, discarded counts for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound.config import Policy
from mailbound.database import bounces, holds
from mailbound.database.changes import Cause
from mailbound.database.tables import activity, bounce, hold, run, store
from mailbound.errors import InputError
from mailbound.model import Disposition
from mailbound.policy import Decision

_HELD = bounce.c.disposition == Disposition.HELD


@dataclass(frozen=True, slots=True)
class Group:
    """Bounces that are held for one reason: a hold, or else a run that is halted."""

    hold: int | None
    run: int | None  # None: of several runs
    activity: str
    store: str
    trait: str  # run, text, remote, domain; "halt" where the run is halted for another reason
    subject: str
    why: str
    bounces: int
    people: int
    since: datetime  # when the earliest of them came
    until: datetime  # when the latest of them came


@dataclass(frozen=True, slots=True)
class Settled:
    """One bounce that was held, and what was decided about it; None if it was discarded."""

    id: int
    address: str
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class Which:
    """Which of the bounces that are held: by their numbers, of a hold, of a run; all of them if it says nothing."""

    ids: Sequence[int] = ()
    hold: int | None = None
    run: int | None = None

    def clause(self) -> sa.ColumnElement[bool]:
        """Return it for the WHERE of a statement."""
        found = _HELD
        if self.ids:
            found &= bounce.c.id.in_(self.ids)
        if self.hold is not None:
            found &= bounce.c.hold_id == self.hold
        if self.run is not None:
            found &= bounce.c.run_id == self.run
        return found


def groups(connection: sa.Connection) -> list[Group]:
    """Return what is held, by what it is held for, the largest group first."""
    own_run = sa.case((bounce.c.hold_id.is_(None), bounce.c.run_id))
    sums = (
        sa.select(
            bounce.c.hold_id,
            own_run.label("halted_id"),
            sa.func.min(bounce.c.run_id).label("first_run"),
            sa.func.max(bounce.c.run_id).label("last_run"),
            sa.func.min(bounce.c.store_id).label("store_id"),
            sa.func.count().label("bounces"),
            sa.func.count(bounce.c.recipient_id.distinct()).label("people"),
            sa.func.min(bounce.c.at).label("since"),
            sa.func.max(bounce.c.at).label("until"),
        )
        .where(_HELD)
        .group_by(bounce.c.hold_id, own_run)
        .subquery()
    )
    named = (
        sa.select(sums, hold.c.trait, hold.c.subject, hold.c.why, run.c.note, activity.c.name, store.c.name)
        .join_from(sums, store, store.c.id == sums.c.store_id)
        .outerjoin(hold, hold.c.id == sums.c.hold_id)
        .outerjoin(run, run.c.id == sums.c.first_run)
        .outerjoin(activity, activity.c.id == run.c.activity_id)
        .order_by(sums.c.bounces.desc(), sums.c.hold_id)
    )
    return [_group(*row) for row in connection.execute(named)]


def _group(*row: Any) -> Group:
    hold_id, _, first, last, _, count, people, since, until, trait, subject, why, note, name, store_name = row
    one_run = first == last
    return Group(
        hold=hold_id,
        run=first if one_run else None,
        activity=(name or "") if one_run else "",
        store=store_name,
        trait=trait or "halt",
        subject=subject or str(first),
        why=why or note or "its run is halted",
        bounces=count,
        people=people,
        since=since,
        until=until,
    )


def count(connection: sa.Connection, which: Which) -> int:
    """Return how many of the bounces that are meant are held."""
    return int(connection.execute(sa.select(sa.func.count()).where(which.clause())).scalar_one())


def numbers(connection: sa.Connection, which: Which) -> list[int]:
    """Return the bounces that are meant. Raises InputError for a number that is not held, and for no bounce at all."""
    found = list(
        connection.execute(sa.select(bounce.c.id).where(which.clause()).order_by(bounce.c.id)).scalars()
    )
    for number in sorted(set(which.ids) - set(found)):
        row = bounces.find(connection, number)
        raise InputError(f"bounce {number} is not held but {row.disposition}: {row.why}")
    if not found:
        raise InputError("nothing like that is held; `mailbound bounce held` shows what is")
    return found


def release(
    connection: sa.Connection, ids: Sequence[int], *, limits: Policy, who: str, now: datetime
) -> list[Settled]:
    """Decide about those of the bounces that are still held, and return what was decided: each is released once."""
    cause = Cause("command", who=who)
    rows = _take(connection, ids)
    done = [
        Settled(
            row.id,
            row.address,
            bounces.judge_again(connection, row.id, bounces.finding_of(row), limits=limits, cause=cause),
        )
        for row in rows
    ]
    _close(connection, rows, who=who, now=now)
    return done


def discard(connection: sa.Connection, ids: Sequence[int], *, who: str, now: datetime) -> list[Settled]:
    """Let those of the bounces that are still held count for nothing, and return them."""
    rows = _take(connection, ids)
    values = {"disposition": Disposition.UNDONE, "why": f"discarded by {who}"}
    connection.execute(bounce.update().where(bounce.c.id.in_([row.id for row in rows])).values(values))
    _close(connection, rows, who=who, now=now)
    return [Settled(row.id, row.address, None) for row in rows]


def _take(connection: sa.Connection, ids: Sequence[int]) -> Sequence[Any]:
    """Return the bounces that are still held, ours until the transaction ends."""
    query = sa.select(bounce).where(_HELD, bounce.c.id.in_(ids)).order_by(bounce.c.id)
    return connection.execute(query.with_for_update()).all()


def _close(connection: sa.Connection, rows: Sequence[Any], *, who: str, now: datetime) -> None:
    holds.close(connection, {row.hold_id for row in rows if row.hold_id is not None}, who=who, now=now)
