"""Effects: what a decision about a bounce changes, with a line of the ledger for each change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from mailbound.database import audience, bulk, changes, deliveries
from mailbound.database.changes import Cause, Standing, Wish
from mailbound.database.deliveries import Told
from mailbound.database.judging import Finding, Judged, Target
from mailbound.database.tables import bounce, change, delivery, opt_in, recipient
from mailbound.lifecycle import DeliveryEvent, DeliveryState
from mailbound.model import Action, Evidence, Source


def write(
    connection: sa.Connection, recorded: Sequence[tuple[int, Judged]], cause: Cause | None
) -> dict[int, DeliveryState]:
    """Write what decisions of one moment change; return the state of the delivery, if there is one, by bounce."""
    if not recorded:
        return {}
    now = recorded[0][1].finding.at
    judged = [
        (each, _caused(number, each.finding, cause))
        for number, each in recorded
        if each.decision.status is not None or each.decision.opt_out is not None
    ]
    states = _move(connection, recorded, now=now)
    changes.set_statuses(connection, _standings(judged), now=now)
    changes.set_opt_ins(connection, _wishes(connection, judged), now=now)
    return states


def _caused(bounce_id: int, finding: Finding, cause: Cause | None) -> Cause:
    cause = cause or Cause(finding.kind)
    return cause._replace(bounce_id=bounce_id, rule_version=finding.rule_version)


def erased(connection: sa.Connection, judged: Sequence[Judged]) -> set[int]:
    """Return which of the recipients that findings speak of wanted to be forgotten."""
    people = {recipient_id for each in judged if (recipient_id := each.recipient_id) is not None}
    return people - changes.there(connection, people)


def _move(
    connection: sa.Connection, recorded: Sequence[tuple[int, Judged]], *, now: datetime
) -> dict[int, DeliveryState]:
    """Move deliveries by what was said of them."""
    states: dict[int, DeliveryState] = {}
    told: dict[int, Told] = {}
    for bounce_id, each in recorded:
        finding, event, target = each.finding, each.decision.delivery, each.target
        if target is not None:
            states[bounce_id] = DeliveryState(target.state)
            if event is not None and _moves(event, finding, target):
                reason = finding.verdict.category if finding.action is Action.FAILED else ""
                status = str(finding.verdict.status) if finding.verdict.status else ""
                resend_at = _resend_at(connection, each) if each.decision.resend else None
                told[bounce_id] = Told(target.id, event, reason, status, resend_at)
    after = deliveries.report(connection, list(told.values()), now=now)
    return states | {bounce_id: after[each.delivery_id] for bounce_id, each in told.items()}


def _resend_at(connection: sa.Connection, judged: Judged) -> datetime | None:
    """Return when a message that bounced softly is sent again; None if it was often enough, or expires before."""
    target = judged.target
    if target is None or not target.resend_soft:
        return None
    tried = sa.select(sa.func.count(bounce.c.attempt.distinct())).where(
        bounce.c.delivery_id == target.id,
        bounce.c.action == Action.FAILED,
        bounce.c.evidence == Evidence.SIGNED,
    )
    if connection.execute(tried).scalar_one() > target.resend_soft:
        return None
    at = judged.finding.at + timedelta(seconds=target.resend_every_seconds)
    return at if target.expires_at is None or at < target.expires_at else None


_Caused = tuple[Judged, Cause]


def _standings(judged: Sequence[_Caused]) -> list[Standing]:
    """Return the statuses that addresses get."""
    return [
        Standing(each.target.address_id, new.status, new.category or "", new.until, cause)
        for each, cause in judged
        if each.target is not None and (new := each.decision.status) is not None
    ]


def _wishes(connection: sa.Connection, judged: Sequence[_Caused]) -> list[Wish]:
    """Return the opt-outs that follow."""
    hard = [each.target for each, _ in judged if _is_hard(each) and each.target is not None]
    wanting = _wanting(connection, hard)
    wishes = []
    for each, cause in judged:
        source = each.decision.opt_out
        store_id = each.target.store_id if each.target else each.finding.store_id
        if source is None or each.recipient_id is None or store_id is None:
            continue
        people: Iterable[int] = [each.recipient_id]
        if each.decision.whole_address:
            people = _sharing(connection, each.recipient_id)
        elif _is_hard(each) and each.target is not None and each.target.id not in wanting:
            people = []
        wishes += [Wish(person, store_id, receive=False, source=source, cause=cause) for person in people]
    return wishes


def _is_hard(judged: Judged) -> bool:
    return judged.decision.opt_out is Source.HARD_BOUNCE


def _wanting(connection: sa.Connection, targets: Sequence[Target]) -> set[int]:
    """Return the deliveries whose recipients want the store's mail, and have still the address that it went to.

    It may be given back one day, so a bounce takes nothing that is not there, and nothing from a new address.
    """
    stores: defaultdict[int, list[int]] = defaultdict(list)
    for target in targets:
        stores[target.store_id].append(target.id)
    return {
        delivery_id
        for store_id, ids in stores.items()
        for (delivery_id,) in _WANTED.get(connection, store=store_id, deliveries=bulk.packed(connection, ids))
    }


def _wanted(connection: sa.Connection) -> sa.Select[Any]:
    store_id = sa.bindparam("store", type_=opt_in.c.store_id.type)
    return (
        sa.select(delivery.c.id)
        .join(recipient, recipient.c.id == delivery.c.recipient_id)
        .where(
            bulk.listed(connection, delivery.c.id, "deliveries"),
            recipient.c.address_id == delivery.c.address_id,
            audience.opted_in(recipient.c.id, store_id),
        )
    )


_WANTED = bulk.Rows(_wanted)


def _sharing(connection: sa.Connection, recipient_id: int) -> Sequence[int]:
    """Return everybody who has the address of a recipient."""
    own = sa.select(recipient.c.address_id).where(recipient.c.id == recipient_id).scalar_subquery()
    return connection.execute(sa.select(recipient.c.id).where(recipient.c.address_id == own)).scalars().all()


def _moves(event: DeliveryEvent, finding: Finding, target: Target) -> bool:
    """Return whether a report moves its delivery: a failure only if it speaks of the latest attempt.

    A reply of our relay has moved it already, and a token that names no attempt is taken at its word.
    """
    overtaken = event is DeliveryEvent.REPORT_FAILED and 0 < finding.attempt < target.attempt
    return finding.evidence is Evidence.SIGNED and not overtaken


def of_bounce(connection: sa.Connection, bounce_id: int) -> Sequence[Any]:
    """Return the lines of the ledger that a bounce caused."""
    return connection.execute(
        sa.select(change).where(change.c.bounce_id == bounce_id).order_by(change.c.id)
    ).all()
