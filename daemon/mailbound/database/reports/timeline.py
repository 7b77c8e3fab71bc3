"""The whole timeline of one person: what was known, wished, sent, reported and concluded, ordered by time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound import address as addresses
from mailbound.database import stores
from mailbound.database.tables import (
    activity,
    address,
    bounce,
    change,
    delivery,
    opt_in,
    recipient,
    recipient_status,
    run,
)
from mailbound.errors import InputError
from mailbound.lifecycle import DeliveryState
from mailbound.model import RecipientStatus

_REPORTED = frozenset({DeliveryState.DELIVERED, DeliveryState.BOUNCED})


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened. `what` is one word for it; `fields` are the facts, those unknown left out."""

    at: datetime
    kind: str  # recipient, delivery, bounce, or what the ledger says: opt_in, status, suppression, address
    what: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Timeline:
    """A person as they are now, and all that happened."""

    recipient_id: int
    external_id: str
    address: str
    name: str
    status: str
    status_until: datetime | None
    opt_ins: Mapping[str, bool]  # by store
    entries: list[Entry] = field(default_factory=list)


def report(connection: sa.Connection, address_or_external_id: str) -> list[Timeline]:
    """Return the timeline of whoever has that external id, or of everybody who shares that address.

    Raises InputError if there is nobody.
    """
    people = _people(connection, address_or_external_id)
    if not people:
        raise InputError(f"no recipient has the external id or the address {address_or_external_id!r}")
    return [_timeline(connection, person) for person in people]


def _people(connection: sa.Connection, text: str) -> list[Any]:
    known = sa.select(recipient, address.c.key).join(address, address.c.id == recipient.c.address_id)
    named = connection.execute(known.where(recipient.c.external_id == text)).all()
    if named:
        return list(named)
    shared = known.where(address.c.key == addresses.key(text)).order_by(recipient.c.id)
    return list(connection.execute(shared))


def _timeline(connection: sa.Connection, person: Any) -> Timeline:
    names = {number: name for name, number in stores.numbers(connection).items()}
    status = connection.execute(
        sa.select(recipient_status).where(recipient_status.c.address_id == person.address_id)
    ).one_or_none()
    wishes = sa.select(opt_in.c.store_id, opt_in.c.receive).where(opt_in.c.recipient_id == person.id)
    timeline = Timeline(
        recipient_id=person.id,
        external_id=person.external_id,
        address=person.address,
        name=person.name,
        status=status.status if status else RecipientStatus.DELIVERABLE.value,
        status_until=status.until if status else None,
        opt_ins={
            names[number]: receive
            for number, receive in connection.execute(wishes.order_by(opt_in.c.store_id))
        },
    )
    # Python sorts stably: of what happened at one moment, the cause comes before its effect.
    timeline.entries.append(
        Entry(person.created_at, "recipient", "imported", {"external_id": person.external_id})
    )
    timeline.entries.extend(_deliveries(connection, person.id))
    timeline.entries.extend(_bounces(connection, person.id))
    timeline.entries.extend(_changes(connection, person, names))
    timeline.entries.sort(key=lambda entry: entry.at)
    return timeline


def _deliveries(connection: sa.Connection, recipient_id: int) -> Iterator[Entry]:
    query = (
        sa.select(
            delivery,
            address.c.key.label("address"),
            activity.c.name.label("activity"),
            sa.func.coalesce(run.c.started_at, run.c.occurrence_at).label("run_at"),
        )
        .select_from(
            delivery.join(run, run.c.id == delivery.c.run_id)
            .join(activity, activity.c.id == run.c.activity_id)
            .join(address, address.c.id == delivery.c.address_id)
        )
        .where(delivery.c.recipient_id == recipient_id)
        .order_by(delivery.c.id)
    )
    for row in connection.execute(query):
        yield from _delivery(row)


def _delivery(row: Any) -> Iterator[Entry]:
    """Yield what is known of one delivery: that it was marked, and how it was settled or where it stands."""
    facts = {"activity": row.activity, "run_id": row.run_id, "delivery_id": row.id, "address": row.address}
    state = DeliveryState(row.state)
    if row.marked_at is not None:
        yield Entry(row.marked_at, "delivery", "marked", {**facts, "attempt": row.attempt})
    # The reason and status of a delivery that bounced are those of the report, which has a line of its own.
    told = {"reply": row.reply}
    if state not in _REPORTED:
        told |= {"reason": row.reason, "status": row.status}
    if state is DeliveryState.QUEUED and row.attempt:
        told["next_attempt_at"] = row.next_attempt_at
    what = DeliveryState.ACCEPTED if state in _REPORTED else state
    at = row.settled_at or row.marked_at or row.run_at
    if state is not DeliveryState.SENDING and (row.settled_at or state not in _REPORTED):
        yield Entry(at, "delivery", what.value, facts | {key: value for key, value in told.items() if value})


def _bounces(connection: sa.Connection, recipient_id: int) -> Iterator[Entry]:
    names = (
        "delivery_id", "run_id", "attempt", "action", "status", "category", "permanent", "rule",
        "rule_version", "evidence", "disposition", "why", "diagnostic", "remote_mta", "reporting_mta",
        "mail_id",
    )  # fmt: skip
    query = (
        sa.select(bounce, activity.c.name.label("activity"))
        .select_from(
            bounce.outerjoin(run, run.c.id == bounce.c.run_id).outerjoin(
                activity, activity.c.id == run.c.activity_id
            )
        )
        .where(bounce.c.recipient_id == recipient_id)
        .order_by(bounce.c.at, bounce.c.id)
    )
    for row in connection.execute(query):
        facts = {"bounce_id": row.id, "activity": row.activity} | {name: getattr(row, name) for name in names}
        yield Entry(row.at, "bounce", row.kind, {k: v for k, v in facts.items() if v not in {None, ""}})


def _changes(connection: sa.Connection, person: Any, store_names: Mapping[int, str]) -> Iterator[Entry]:
    """Yield what the ledger says of the person, and of the addresses that they have or had mail sent to."""
    had = sa.select(delivery.c.address_id).where(delivery.c.recipient_id == person.id)
    theirs = {person.address_id, *connection.execute(had).scalars()}
    query = (
        sa.select(change, address.c.key.label("address"))
        .outerjoin(address, address.c.id == change.c.address_id)
        .where((change.c.recipient_id == person.id) | change.c.address_id.in_(theirs))
        .order_by(change.c.at, change.c.id)
    )
    for row in connection.execute(query):
        facts = {
            "change_id": row.id,
            "before": row.before,
            "after": row.after,
            "cause": row.cause,
            "who": row.who,
            "bounce_id": row.bounce_id,
            "undoes": row.undoes,
            "store": store_names.get(row.store_id, "") if row.store_id is not None else "",
            "address": row.address,
        }
        yield Entry(row.at, row.kind, "changed", {key: value for key, value in facts.items() if value})
