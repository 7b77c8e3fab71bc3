"""Effects: what a decision about a bounce changes, with a line of the ledger for each change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from mailbound.database import audience, changes, deliveries
from mailbound.database.changes import Cause
from mailbound.database.tables import change, recipient
from mailbound.lifecycle import DeliveryEvent, DeliveryState
from mailbound.model import Action, Evidence, Source
from mailbound.policy import Decision

if TYPE_CHECKING:
    from mailbound.database.bounces import Finding


def write(
    connection: sa.Connection,
    bounce_id: int,
    finding: Finding,
    decision: Decision,
    target: Any | None,
    *,
    cause: Cause,
) -> DeliveryState | None:
    """Write the effects of a decision; return the delivery's state afterwards, or None if it speaks of none."""
    cause = replace(cause, bounce_id=bounce_id, rule_version=finding.rule_version)
    state = None
    if target is not None:
        state = DeliveryState(target.state)
        if decision.delivery is not None and _moves(decision.delivery, finding, target):
            status = str(finding.verdict.status) if finding.verdict.status else ""
            state = deliveries.report(
                connection,
                target.id,
                decision.delivery,
                reason=finding.verdict.category if finding.action is Action.FAILED else "",
                status=status,
                now=finding.at,
            )
        if decision.status is not None:
            changes.set_status(
                connection,
                address_id=target.address_id,
                status=decision.status.status,
                category=decision.status.category or "",
                until=decision.status.until,
                cause=cause,
                now=finding.at,
            )
    if decision.opt_out is not None:
        _opt_out(connection, finding, decision, target, cause)
    return state


def speak_of_erased(connection: sa.Connection, finding: Finding, target: Any | None) -> bool:
    """Return whether a finding speaks of somebody who wanted to be forgotten."""
    recipient_id = target.recipient_id if target else finding.recipient_id
    if recipient_id is None:
        return False
    return connection.execute(sa.select(recipient.c.id).where(recipient.c.id == recipient_id)).first() is None


def _moves(event: DeliveryEvent, finding: Finding, target: Any) -> bool:
    """Return whether a report moves its delivery: a failure only if it speaks of the latest attempt.

    A reply of our relay has moved it already, and a token that names no attempt is taken at its word.
    """
    overtaken = event is DeliveryEvent.REPORT_FAILED and 0 < finding.attempt < target.attempt
    return finding.evidence is Evidence.SIGNED and not overtaken


def _opt_out(
    connection: sa.Connection, finding: Finding, decision: Decision, target: Any | None, cause: Cause
) -> None:
    recipient_id = target.recipient_id if target else finding.recipient_id
    store_id = target.store_id if target else finding.store_id
    if recipient_id is None or store_id is None or decision.opt_out is None:
        return
    people = sa.select(recipient.c.id).where(recipient.c.id == recipient_id)
    if decision.whole_address:
        own = sa.select(recipient.c.address_id).where(recipient.c.id == recipient_id).scalar_subquery()
        people = sa.select(recipient.c.id).where(recipient.c.address_id == own)
    if target is not None and decision.opt_out is Source.HARD_BOUNCE:
        # It may be given back one day, so it takes nothing that is not there, and nothing from a new address.
        wished = audience.opted_in(recipient.c.id, store_id)
        people = people.where(recipient.c.address_id == target.address_id, wished)
    for person in connection.execute(people).scalars().all():
        changes.set_opt_in(
            connection,
            recipient_id=person,
            store_id=store_id,
            receive=False,
            source=decision.opt_out,
            cause=cause,
            now=finding.at,
        )


def of_bounce(connection: sa.Connection, bounce_id: int) -> Sequence[Any]:
    """Return the lines of the ledger that a bounce caused."""
    return connection.execute(
        sa.select(change).where(change.c.bounce_id == bounce_id).order_by(change.c.id)
    ).all()
