"""Activities: what an operator planned. Its executions are in `runs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from mailbound.database import stores
from mailbound.database.tables import activity, segment, store
from mailbound.errors import InputError


@dataclass(frozen=True, slots=True)
class Activity:
    """An e-mail activity: a template, a segment, a store and a schedule."""

    id: int
    name: str
    store: str
    store_id: int
    segment: str
    segment_id: int
    template: str
    starts_at: datetime | None
    cron: str | None
    time_zone: str
    window: Mapping[str, Any] | None
    grace: timedelta
    expires_after: timedelta
    in_doubt: str
    planned_through: datetime
    ended_at: datetime | None
    resend_soft: int  # how often a message that bounced softly is sent again
    resend_every: timedelta


@dataclass(frozen=True, slots=True)
class Plan:
    """What `activity create` was given."""

    name: str
    store: str
    segment: str
    template: str
    time_zone: str
    grace: timedelta
    expires_after: timedelta
    in_doubt: str
    starts_at: datetime | None = None
    cron: str | None = None
    window: Mapping[str, Any] | None = None
    resend_soft: int = 0
    resend_every: timedelta = timedelta(days=1)


def create(connection: sa.Connection, plan: Plan, *, now: datetime) -> Activity:
    """Keep a new activity. Raises InputError for a name that is taken, or an unknown store or segment."""
    if connection.execute(sa.select(activity.c.id).where(activity.c.name == plan.name)).one_or_none():
        raise InputError(f"there is an activity {plan.name!r} already; choose another name")
    segment_id = connection.execute(
        sa.select(segment.c.id).where(segment.c.name == plan.segment)
    ).scalar_one_or_none()
    if segment_id is None:
        raise InputError(
            f"there is no segment {plan.segment!r}; `mailbound segment list` shows those there are"
        )
    values = {
        "name": plan.name,
        "store_id": stores.number(connection, plan.store),
        "segment_id": segment_id,
        "template": plan.template,
        "starts_at": plan.starts_at,
        "cron": plan.cron,
        "time_zone": plan.time_zone,
        "window": plan.window,
        "grace_seconds": int(plan.grace.total_seconds()),
        "expires_after_seconds": int(plan.expires_after.total_seconds()),
        "in_doubt": plan.in_doubt,
        "resend_soft": plan.resend_soft,
        "resend_every_seconds": int(plan.resend_every.total_seconds()),
        "created_at": now,
        "planned_through": min(now, plan.starts_at - timedelta(seconds=1)) if plan.starts_at else now,
    }
    connection.execute(activity.insert().values(values))
    return find(connection, plan.name)


def find(connection: sa.Connection, name_or_id: str | int) -> Activity:
    """Return the activity of that name or id. Raises InputError if there is none."""
    by_name = activity.c.name == str(name_or_id)
    by_id = activity.c.id == int(name_or_id) if str(name_or_id).isdecimal() else sa.false()
    rows = [_activity(row) for row in connection.execute(_all().where(by_name | by_id))]
    named = [row for row in rows if row.name == str(name_or_id)]
    if not rows:
        raise InputError(
            f"there is no activity {str(name_or_id)!r}; `mailbound activity list` shows those there are"
        )
    return (named or rows)[0]


def everything(connection: sa.Connection) -> Sequence[Activity]:
    """Return all activities, the newest first."""
    return [_activity(row) for row in connection.execute(_all().order_by(activity.c.id.desc()))]


def unplanned(connection: sa.Connection, now: datetime) -> Sequence[Activity]:
    """Return the activities with due times that are no runs yet: those that have a schedule and did not end."""
    scheduled = activity.c.cron.isnot(None) | activity.c.starts_at.isnot(None)
    query = _all().where(scheduled, activity.c.ended_at.is_(None), activity.c.planned_through <= now)
    return [_activity(row) for row in connection.execute(query)]


def recurring(connection: sa.Connection) -> Sequence[Activity]:
    """Return the activities whose due times come again and again, and did not end."""
    query = _all().where(activity.c.cron.isnot(None), activity.c.ended_at.is_(None))
    return [_activity(row) for row in connection.execute(query)]


def end(connection: sa.Connection, activity_id: int, *, now: datetime) -> None:
    """Let no more runs come of an activity."""
    connection.execute(
        activity.update()
        .where(activity.c.id == activity_id, activity.c.ended_at.is_(None))
        .values(ended_at=now)
    )


def plan_through(connection: sa.Connection, activity_id: int, moment: datetime) -> None:
    """Remember that every due time up to `moment` has become a run."""
    connection.execute(activity.update().where(activity.c.id == activity_id).values(planned_through=moment))


def _all() -> sa.Select[Any]:
    return (
        sa.select(activity, store.c.name.label("store"), segment.c.name.label("segment"))
        .join(store, store.c.id == activity.c.store_id)
        .join(segment, segment.c.id == activity.c.segment_id)
    )


def _activity(row: Any) -> Activity:
    return Activity(
        id=row.id,
        name=row.name,
        store=row.store,
        store_id=row.store_id,
        segment=row.segment,
        segment_id=row.segment_id,
        template=row.template,
        starts_at=row.starts_at,
        cron=row.cron,
        time_zone=row.time_zone,
        window=row.window,
        grace=timedelta(seconds=row.grace_seconds),
        expires_after=timedelta(seconds=row.expires_after_seconds),
        in_doubt=row.in_doubt,
        planned_through=row.planned_through,
        ended_at=row.ended_at,
        resend_soft=row.resend_soft,
        resend_every=timedelta(seconds=row.resend_every_seconds),
    )
