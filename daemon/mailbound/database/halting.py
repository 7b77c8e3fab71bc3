"""What the circuit breaker looks at, and what it holds back until an operator has looked."""

from __future__ import annotations

import sqlalchemy as sa

from mailbound.config import Policy
from mailbound.database import bounces
from mailbound.database.tables import bounce, run
from mailbound.model import Action, Category, Disposition, Fault

_BLAMES_US = tuple(category.value for category in Category if category.fault is Fault.SENDER)


def blame(connection: sa.Connection, run_id: int) -> int:
    """Return how many failures of a run blame us; what came before an operator last resumed it does not count."""
    pardoned = sa.select(run.c.pardoned_through).where(run.c.id == run_id).scalar_subquery()
    count = sa.select(sa.func.count()).where(
        bounce.c.run_id == run_id,
        bounce.c.action == Action.FAILED,
        bounce.c.category.in_(_BLAMES_US),
        bounce.c.id > pardoned,
    )
    return int(connection.execute(count).scalar_one())


def pardon(connection: sa.Connection, run_id: int) -> None:
    """Let the breaker look only at what comes from now on."""
    latest = sa.select(sa.func.coalesce(sa.func.max(bounce.c.id), 0)).scalar_subquery()
    connection.execute(run.update().where(run.c.id == run_id).values(pardoned_through=latest))


def release(connection: sa.Connection, run_id: int, *, limits: Policy) -> int:
    """Decide anew about what was held since a run was halted; return how many changed something.

    What is in a hold, as it came back in a mass, stays held: `releasing` is for that.
    """
    held = sa.select(bounce).where(_held(run_id))
    decisions = [
        bounces.judge_again(connection, row.id, bounces.finding_of(row), limits=limits)
        for row in connection.execute(held.order_by(bounce.c.id)).all()
    ]
    return sum(decision.disposition is Disposition.APPLIED for decision in decisions)


def discard(connection: sa.Connection, run_id: int) -> int:
    """Let what was held since a run was halted count for nothing; return how many bounces that were."""
    values = {"disposition": Disposition.UNDONE, "why": "its run was cancelled while it was halted"}
    return connection.execute(bounce.update().where(_held(run_id)).values(values)).rowcount


def _held(run_id: int) -> sa.ColumnElement[bool]:
    return (
        (bounce.c.run_id == run_id) & (bounce.c.disposition == Disposition.HELD) & bounce.c.hold_id.is_(None)
    )
