"""Quarantine: reports that nothing shows to be genuine. They change nobody, and take no more room than they may.

An operator may accept one. It is then taken to speak of the last message that went to the address it names, or for a
wish to unsubscribe, of whoever has the address.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from mailbound import address as addresses
from mailbound import tokens
from mailbound.config import Policy
from mailbound.database import bounces, raw_mail
from mailbound.database.changes import Cause
from mailbound.database.inbound_mail import HELD_OCTETS
from mailbound.database.tables import (
    activity,
    address,
    bounce,
    change,
    delivery,
    inbound_mail,
    inbound_raw,
    recipient,
    run,
)
from mailbound.errors import InputError
from mailbound.model import Action, Disposition, Evidence, Kind
from mailbound.policy import Decision

_QUARANTINED = bounce.c.disposition == Disposition.QUARANTINED
_KNOWN = "it was known already"


@dataclass(frozen=True, slots=True)
class Room:
    """How much is in quarantine: reports, and the octets of their mails."""

    reports: int
    octets: int


def room(connection: sa.Connection) -> Room:
    """Return how much is in quarantine."""
    reports = connection.execute(sa.select(sa.func.count()).where(_QUARANTINED)).scalar_one()
    return Room(reports, sum(octets for _, octets in _mails(connection)))


def numbers(connection: sa.Connection, *, wishes: bool) -> list[int]:
    """Return all reports that are in quarantine, the oldest first: wishes to unsubscribe, or all others."""
    kind = bounce.c.kind == Kind.UNSUBSCRIBE if wishes else bounce.c.kind != Kind.UNSUBSCRIBE
    query = sa.select(bounce.c.id).where(_QUARANTINED, kind).order_by(bounce.c.id)
    return list(connection.execute(query).scalars())


def about(connection: sa.Connection, row: Any) -> Any | None:
    """Return whom a report would speak of if it were accepted, with the delivery if it is about one; else None."""
    try:
        key = addresses.normalise(row.address).key
    except InputError:
        return None
    people = sa.select(recipient.c.id).join(address, address.c.id == recipient.c.address_id)
    people = people.where(address.c.key == key)
    if row.action == Action.UNSUBSCRIBED:
        return connection.execute(
            sa.select(recipient.c.id.label("recipient_id"), recipient.c.external_id)
            .where(recipient.c.id.in_(people))
            .order_by(recipient.c.id)
            .limit(1)
        ).one_or_none()
    query = (
        sa.select(
            delivery.c.recipient_id,
            recipient.c.external_id,
            delivery.c.id.label("delivery_id"),
            delivery.c.run_id,
            delivery.c.address_id,
            delivery.c.domain_id,
            delivery.c.attempt,
            activity.c.store_id,
            activity.c.name.label("activity"),
        )
        .join(recipient, recipient.c.id == delivery.c.recipient_id)
        .join(run, run.c.id == delivery.c.run_id)
        .join(activity, activity.c.id == run.c.activity_id)
        .where(
            delivery.c.recipient_id.in_(people),
            delivery.c.address_id == recipient.c.address_id,
            delivery.c.marked_at.between(row.at - tokens.VALID_FOR, row.at),
        )
        .order_by((activity.c.store_id == row.store_id).desc(), delivery.c.marked_at.desc())
        .limit(1)
    )
    return connection.execute(query).one_or_none()


def accept(connection: sa.Connection, bounce_id: int, *, limits: Policy, who: str) -> Decision:
    """Take a report as genuine, and return what the policy made of it.

    Raises InputError if it is not in quarantine, or speaks of nobody whom we mailed.
    """
    row = _take(connection, bounce_id)
    subject = about(connection, row)
    if subject is None:
        raise InputError(
            f"report {bounce_id} speaks of nobody whom we mailed within {tokens.VALID_FOR.days} days"
        )
    found = bounces.finding_of(row)._replace(evidence=Evidence.SIGNED, recipient_id=subject.recipient_id)
    _settle(connection, bounce_id, recipient_id=subject.recipient_id)
    if row.action != Action.UNSUBSCRIBED:
        if _is_known(connection, row, subject):
            _settle(connection, bounce_id, disposition=Disposition.UNDONE, why=_KNOWN)
            return Decision(Disposition.UNDONE, _KNOWN)
        speaks_of = {name: getattr(subject, name) for name in ("delivery_id", "attempt", "store_id")}
        found = found._replace(**speaks_of)
        place = {name: getattr(subject, name) for name in ("run_id", "address_id", "domain_id")}
        _settle(connection, bounce_id, **speaks_of, **place)
    decision = bounces.judge_again(
        connection, bounce_id, found, limits=limits, cause=Cause("command", who=who)
    )
    _settle(connection, bounce_id, why=f"accepted by {who}: {decision.why}"[:255])
    return decision


def drop(connection: sa.Connection, bounce_id: int, *, who: str) -> None:
    """Let a report count for nothing, and forget its mail. Raises InputError if it is not in quarantine."""
    row = _take(connection, bounce_id)
    _settle(connection, bounce_id, disposition=Disposition.UNDONE, why=f"dropped by {who}")
    others = sa.select(bounce.c.id).where(
        bounce.c.mail_id == row.mail_id, bounce.c.disposition != Disposition.UNDONE
    )
    if connection.execute(others.limit(1)).first() is None:
        raw_mail.forget(connection, [row.mail_id])


def shrink(connection: sa.Connection, *, budget_octets: int, deleting: Collection[int]) -> Room:
    """Forget the oldest reports until their mails take no more than `budget_octets`; return what went.

    Wishes to unsubscribe go last: however much others forge, nobody's wish is lost for that.
    Of the stores in `deleting`, which keep no mail on their servers, the mails are forgotten altogether.
    """
    mails = _mails(connection)
    excess = sum(octets for _, octets in mails) - budget_octets
    gone, octets = [], 0
    for mail_id, size in mails:
        if octets >= excess:
            break
        gone.append(mail_id)
        octets += size
    return Room(_forget(connection, gone, deleting), octets)


def expire(
    connection: sa.Connection, *, before: datetime, deleting: Collection[int], limit: int = 1000
) -> int:
    """Forget some of what came before `before` and nobody accepted; return how many reports went.

    Of the stores in `deleting`, which keep no mail on their servers, the mails are forgotten altogether.
    """
    ours = sa.exists().where(change.c.bounce_id == bounce.c.id)
    unwanted = bounce.c.disposition.in_((Disposition.QUARANTINED.value, Disposition.UNDONE.value))
    old = (
        sa.select(bounce.c.id, bounce.c.mail_id)
        .where(bounce.c.evidence == Evidence.UNSIGNED, unwanted, bounce.c.at < before, sa.not_(ours))
        .order_by(bounce.c.id)
        .limit(limit)
    )
    rows = connection.execute(old).all()
    connection.execute(bounce.delete().where(bounce.c.id.in_([row.id for row in rows])))
    mails = {row.mail_id for row in rows if row.mail_id is not None}
    mails -= set(connection.execute(sa.select(bounce.c.mail_id).where(bounce.c.mail_id.in_(mails))).scalars())
    _forget_mails(connection, mails, deleting)
    return len(rows)


def _mails(connection: sa.Connection) -> list[tuple[int, int]]:
    """Return the kept mails that are in quarantine altogether, with their sizes, the oldest first, wishes last."""
    other = bounce.alias("other")
    believed = sa.exists().where(
        other.c.mail_id == inbound_mail.c.id,
        other.c.disposition.not_in((Disposition.QUARANTINED.value, Disposition.UNDONE.value)),
    )
    query = (
        sa.select(inbound_mail.c.id, HELD_OCTETS.label("octets"))
        .join(inbound_raw, inbound_raw.c.mail_id == inbound_mail.c.id)
        .where(inbound_mail.c.id.in_(sa.select(bounce.c.mail_id).where(_QUARANTINED)), sa.not_(believed))
        .order_by(inbound_mail.c.kind == Kind.UNSUBSCRIBE, inbound_mail.c.id)
    )
    return [(row.id, row.octets) for row in connection.execute(query)]


def _forget(connection: sa.Connection, mails: Sequence[int], deleting: Collection[int]) -> int:
    reports = 0
    for start in range(0, len(mails), 500):
        some = mails[start : start + 500]
        gone = bounce.delete().where(bounce.c.mail_id.in_(some), _QUARANTINED)
        reports += connection.execute(gone).rowcount
        _forget_mails(connection, some, deleting)
    return reports


def _forget_mails(connection: sa.Connection, mails: Collection[int], deleting: Collection[int]) -> None:
    """Forget the octets of mails and, where no server has them any more and no report names them, their rows."""
    raw_mail.forget(connection, mails)
    named = sa.exists().where(bounce.c.mail_id == inbound_mail.c.id)
    ours = inbound_mail.c.id.in_(mails), inbound_mail.c.store_id.in_(deleting), sa.not_(named)
    connection.execute(inbound_mail.delete().where(*ours))


def _take(connection: sa.Connection, bounce_id: int) -> Any:
    connection.execute(sa.select(bounce.c.id).where(bounce.c.id == bounce_id).with_for_update())
    row = bounces.find(connection, bounce_id)
    if row.disposition != Disposition.QUARANTINED:
        raise InputError(f"report {bounce_id} is not in quarantine but {row.disposition}: {row.why}")
    return row


def _is_known(connection: sa.Connection, row: Any, subject: Any) -> bool:
    """Return whether the same was said of the same delivery by another report, with better evidence."""
    same = sa.select(bounce.c.id).where(
        bounce.c.delivery_id == subject.delivery_id,
        bounce.c.attempt == subject.attempt,
        bounce.c.recipient_id == subject.recipient_id,
        bounce.c.action == row.action,
        bounce.c.status_class == row.status_class,
    )
    return connection.execute(same.limit(1)).first() is not None


def _settle(connection: sa.Connection, bounce_id: int, **values: Any) -> None:
    connection.execute(bounce.update().where(bounce.c.id == bounce_id).values(values))
