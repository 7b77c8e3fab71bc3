"""Runs: the executions of an activity. Every state comes from `lifecycle.advance_run`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound import lifecycle
from mailbound.database import changes
from mailbound.database.tables import activity, delivery, run, template
from mailbound.errors import InputError
from mailbound.lifecycle import DeliveryState, RunEvent, RunState


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of an activity at one due time."""

    id: int
    activity_id: int
    activity: str
    store_id: int
    occurrence_at: datetime
    state: RunState
    note: str
    template_id: int | None
    frozen_at: datetime | None
    key_id: int | None
    day: int | None
    started_at: datetime | None
    finished_at: datetime | None  # of a run that sends again: when it was over first
    expires_at: datetime | None

    @property
    def reopened(self) -> bool:
        """Return whether it was over, and sends again what was in doubt or came back softly."""
        return self.state is RunState.SENDING and self.finished_at is not None


def schedule(connection: sa.Connection, activity_id: int, occurrence_at: datetime) -> bool:
    """Keep a run for a due time; return False if there is one already."""
    insert = changes.upsert(connection, run).values(
        activity_id=activity_id, occurrence_at=occurrence_at, state=RunState.SCHEDULED
    )
    return (
        connection.execute(insert.on_conflict_do_nothing().returning(run.c.id)).scalar_one_or_none()
        is not None
    )


def coming(connection: sa.Connection, activity_id: int, now: datetime) -> set[datetime]:
    """Return the due times of an activity that are runs already, and still to come."""
    query = sa.select(run.c.occurrence_at).where(*_coming(activity_id, now))
    return set(connection.execute(query).scalars())


def unschedule(connection: sa.Connection, activity_id: int, now: datetime) -> None:
    """Forget the runs of an activity that are still to come."""
    connection.execute(run.delete().where(*_coming(activity_id, now)))


def _coming(activity_id: int, now: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return run.c.activity_id == activity_id, run.c.state == RunState.SCHEDULED, run.c.occurrence_at > now


def move(
    connection: sa.Connection,
    /,
    run_id: int,
    event: RunEvent,
    *,
    now: datetime,
    note: str = "",
    **values: Any,
) -> RunState:
    """Let `event` happen to a run and return its state afterwards. Raises InvalidTransition if it cannot."""
    state = connection.execute(
        sa.select(run.c.state).where(run.c.id == run_id).with_for_update()
    ).scalar_one()
    after = lifecycle.advance_run(RunState(state), event)
    if after not in lifecycle.RUN_OPEN:
        values["finished_at"] = now
    connection.execute(run.update().where(run.c.id == run_id).values(state=after, note=note[:255], **values))
    return after


def start(
    connection: sa.Connection,
    run_id: int,
    *,
    frozen_template: bytes,
    template_name: str,
    key_id: int,
    day: int,
    expires_at: datetime,
    now: datetime,
) -> None:
    """Let a run begin to send, with its template, key and day frozen."""
    move(
        connection,
        run_id,
        RunEvent.START,
        now=now,
        template_id=_keep_template(connection, template_name, frozen_template),
        key_id=key_id,
        day=day,
        started_at=now,
        finished_at=None,
        expires_at=expires_at,
    )


def _keep_template(connection: sa.Connection, name: str, content: bytes) -> int:
    sha256 = hashlib.sha256(content).hexdigest()
    row = {"sha256": sha256, "name": name[:64], "content": content}
    connection.execute(changes.upsert(connection, template).values(row).on_conflict_do_nothing())
    return int(connection.execute(sa.select(template.c.id).where(template.c.sha256 == sha256)).scalar_one())


def frozen_template(connection: sa.Connection, template_id: int) -> bytes:
    """Return a template as a run froze it."""
    return bytes(
        connection.execute(sa.select(template.c.content).where(template.c.id == template_id)).scalar_one()
    )


def in_state(connection: sa.Connection, *states: RunState) -> Sequence[Run]:
    """Return the runs in one of `states`, the earliest due first."""
    query = _all().where(run.c.state.in_([state.value for state in states]))
    return [_run(row) for row in connection.execute(query.order_by(run.c.occurrence_at, run.c.id))]


def of_activity(connection: sa.Connection, activity_id: int) -> Sequence[Run]:
    """Return the runs of an activity, the latest due first."""
    query = _all().where(run.c.activity_id == activity_id)
    return [_run(row) for row in connection.execute(query.order_by(run.c.occurrence_at.desc()))]


def find(connection: sa.Connection, run_id: int) -> Run:
    """Return a run. Raises InputError if there is none."""
    row = connection.execute(_all().where(run.c.id == run_id)).one_or_none()
    if row is None:
        raise InputError(f"there is no run {run_id}")
    return _run(row)


def with_leftovers(connection: sa.Connection) -> Sequence[Run]:
    """Return the cancelled runs that still have deliveries in the queue."""
    queued = sa.exists().where(delivery.c.run_id == run.c.id, delivery.c.state == DeliveryState.QUEUED)
    return [_run(row) for row in connection.execute(_all().where(run.c.state == RunState.CANCELLED, queued))]


def predecessor_open(connection: sa.Connection, of: Run) -> bool:
    """Return whether an earlier run of the same activity is still under way.

    One that was over and sends a few again keeps nobody waiting, unless it was stopped.
    """
    stopped = run.c.state.in_([RunState.PAUSED.value, RunState.HALTED.value])
    earlier = sa.exists().where(
        run.c.activity_id == of.activity_id,
        run.c.occurrence_at < of.occurrence_at,
        stopped | ((run.c.state == RunState.SENDING) & run.c.finished_at.is_(None)),
    )
    return bool(connection.execute(sa.select(earlier)).scalar())


def _all() -> sa.Select[Any]:
    return sa.select(run, activity.c.name.label("activity"), activity.c.store_id).join(
        activity, activity.c.id == run.c.activity_id
    )


def _run(row: Any) -> Run:
    return Run(
        id=row.id,
        activity_id=row.activity_id,
        activity=row.activity,
        store_id=row.store_id,
        occurrence_at=row.occurrence_at,
        state=RunState(row.state),
        note=row.note,
        template_id=row.template_id,
        frozen_at=row.frozen_at,
        key_id=row.key_id,
        day=row.day,
        started_at=row.started_at,
        finished_at=row.finished_at,
        expires_at=row.expires_at,
    )
