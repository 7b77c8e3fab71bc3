"""Findings judged: each is put beside the delivery that it speaks of and the history of its address.

Nothing is written here. What judges a batch asks a few questions for all of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from mailbound import address as addresses
from mailbound import guard, policy, tokens
from mailbound.config import Policy
from mailbound.database import bulk, histories, holds
from mailbound.database.holds import Hold
from mailbound.database.tables import activity, address, delivery, run
from mailbound.guard import Traits
from mailbound.lifecycle import RunState
from mailbound.model import Action, Evidence, Kind, Verdict
from mailbound.policy import Decision, History, Sign


class Finding(NamedTuple):
    """One thing that a mail or a reply says about one recipient, correlated but not yet judged."""

    kind: Kind
    at: datetime
    action: Action
    verdict: Verdict
    evidence: Evidence
    delivery_id: int | None = None
    minted: tuple[int, int] | None = None  # key id and day of the token; None for direct evidence
    attempt: int = 0
    recipient_id: int | None = None  # of an unsubscribe token, which names no delivery
    store_id: int | None = None
    mail_id: int | None = None
    addresses: Sequence[str] = ()  # as the report names the recipient: original, then final
    diagnostic: str = ""
    reporting_mta: str = ""
    remote_mta: str = ""
    rule_version: str = ""
    doubt: str = ""  # why it is unsigned
    carriers: Sequence[str] = ()  # what brought our tokens back


class Target(NamedTuple):
    """The delivery that a finding speaks of, with what its run, its activity and its address say."""

    id: int
    run_id: int
    recipient_id: int
    address_id: int
    domain_id: int
    state: str
    attempt: int
    marked_at: datetime | None
    run_state: str
    key_id: int
    day: int
    expires_at: datetime | None
    store_id: int
    resend_soft: int
    resend_every_seconds: int
    key: str  # of the address
    guarded: bool  # its store has open holds


class Judged(NamedTuple):
    """A finding, the delivery that it speaks of, and what is to be done."""

    finding: Finding
    target: Target | None
    sign: Sign
    decision: Decision
    hold: Hold | None

    @property
    def recipient_id(self) -> int | None:
        """Return the recipient that it speaks of, or None."""
        return self.target.recipient_id if self.target is not None else self.finding.recipient_id


Proven = tuple[Finding, Target | None]
"""A finding with the delivery that it speaks of, or None."""


def prove(connection: sa.Connection, findings: Sequence[Finding]) -> list[Proven]:
    """Return findings with their deliveries; one whose evidence does not hold speaks of none, and is unsigned."""
    targets = _targets(connection, {finding.delivery_id for finding in findings} - {None})
    return [_proven(finding, targets.get(finding.delivery_id)) for finding in findings]


def _proven(finding: Finding, row: Target | None) -> Proven:
    why = _doubt(row, finding) if finding.delivery_id is not None else finding.doubt
    if finding.recipient_id is None and (why or row is None):
        return finding._replace(evidence=Evidence.UNSIGNED, delivery_id=None, doubt=why), None
    return finding, row


def independent(proven: Sequence[Proven]) -> int:
    """Return how many of the first findings are of one moment and share no address and no recipient; 1 at least.

    What one of them changes is then nothing that another one asks for. A wish, which may hold for everybody who shares
    an address, is alone.
    """
    seen: set[tuple[str, int]] = set()
    for count, (finding, target) in enumerate(proven):
        touched = set()
        if target is not None:
            touched = {("address", target.address_id), ("recipient", target.recipient_id)}
        alone = finding.recipient_id is not None or finding.action in _WISHES
        if count and (alone or finding.at != proven[0][0].at or touched & seen):
            return count
        if alone:
            return 1
        seen |= touched
    return len(proven)


_WISHES = frozenset({Action.COMPLAINED, Action.UNSUBSCRIBED})


def open_holds(connection: sa.Connection, proven: Sequence[Proven]) -> list[Hold]:
    """Return the holds that are open in the stores of those deliveries."""
    stores = {target.store_id for _, target in proven if target is not None and target.guarded}
    return [each for store_id in stores for each in holds.open_ones(connection, store_id=store_id)]


def judge(
    connection: sa.Connection,
    proven: Sequence[Proven],
    limits: Policy,
    open_holds: Sequence[Hold] = (),
    *,
    again: bool = False,
) -> list[Judged]:
    """Decide about findings of one moment. Who judges `again` has looked at what was held."""
    now = proven[0][0].at
    known = {target.id: target.address_id for _, target in proven if target is not None}
    past = histories.before(connection, known, at=now, quiet_before=now - limits.quiet_success)
    judged = []
    for finding, target in proven:
        hold = _hold(finding, target, open_holds)
        sign = _sign(finding, target, crowded=hold is not None, again=again)
        history = past[target.id] if target is not None else History()
        decision = policy.decide(sign, history, now=now, limits=limits)
        judged.append(Judged(finding, target, sign, decision, hold))
    return judged


def gist(finding: Finding, address: str) -> str:
    """Return what a finding says of anybody; where it has no words, its status code."""
    status = finding.verdict.status
    return guard.gist(finding.diagnostic, address) or (f"status {status}" if status else "")


def _hold(finding: Finding, target: Target | None, open_holds: Sequence[Hold]) -> Hold | None:
    """Return the hold that a finding belongs to: of bounces that are so many and so alike that nobody believes them."""
    verdict = finding.verdict
    deadly = finding.action is Action.FAILED and verdict.permanent and verdict.category in guard.DEADLY
    if target is None or not open_holds or not deadly:
        return None
    domain = target.key.rpartition("@")[2]
    traits = Traits(target.run_id, gist(finding, target.key), finding.remote_mta, domain)
    return holds.first_fitting([each for each in open_holds if each.store_id == target.store_id], traits)


def doubt(connection: sa.Connection, finding: Finding) -> str:
    """Return why a token that is genuine is no evidence for its delivery; "" if it is, or if there is none."""
    if finding.delivery_id is None:
        return ""
    return _doubt(_targets(connection, [finding.delivery_id]).get(finding.delivery_id), finding)


def _targets(connection: sa.Connection, ids: Collection[int | None]) -> dict[int | None, Target]:
    """Return deliveries by their ids; what is not there is missing."""
    if not ids:
        return {}
    rows = map(Target._make, _NAMED.get(connection, ids=bulk.packed(connection, ids)))
    return {
        row.id: row._replace(marked_at=bulk.moment(row.marked_at), expires_at=bulk.moment(row.expires_at))
        for row in rows
    }


def _named(connection: sa.Connection) -> sa.Select[Any]:
    return (
        sa.select(
            delivery.c.id,
            delivery.c.run_id,
            delivery.c.recipient_id,
            delivery.c.address_id,
            delivery.c.domain_id,
            delivery.c.state,
            delivery.c.attempt,
            delivery.c.marked_at,
            run.c.state.label("run_state"),
            run.c.key_id,
            run.c.day,
            run.c.expires_at,
            activity.c.store_id,
            activity.c.resend_soft,
            activity.c.resend_every_seconds,
            address.c.key,
            holds.are_open(activity.c.store_id).label("guarded"),
        )
        .join(run, run.c.id == delivery.c.run_id)
        .join(activity, activity.c.id == run.c.activity_id)
        .join(address, address.c.id == delivery.c.address_id)
        .where(bulk.listed(connection, delivery.c.id, "ids"))
    )


_NAMED = bulk.Rows(_named)


def _doubt(row: Target | None, finding: Finding) -> str:
    if row is None:
        return "there is no such delivery any more"
    if finding.evidence is Evidence.DIRECT:
        return ""
    if finding.store_id is not None and finding.store_id != row.store_id:
        return "the delivery is of another store than the mailbox"
    if row.marked_at is None:
        return "the delivery was never sent"
    if finding.at - row.marked_at > tokens.VALID_FOR:
        return f"the delivery was sent more than {tokens.VALID_FOR.days} days before"
    # After a restore from a backup, delivery ids are given anew: an old token must not speak of a new delivery.
    if finding.minted is not None and finding.minted != (row.key_id, row.day):
        return "the token is of another delivery that had the same number, before a restore"
    return ""


def _sign(finding: Finding, target: Target | None, *, crowded: bool, again: bool) -> Sign:
    own = (
        target is None
        or not finding.addresses
        or target.key in finding.addresses
        or any(addresses.same(text, target.key) for text in finding.addresses)
    )
    return Sign(
        action=finding.action,
        verdict=finding.verdict,
        evidence=finding.evidence,
        own_address=own,
        marked_at=target.marked_at if target and finding.evidence is Evidence.SIGNED else None,
        doubt=finding.doubt,
        run_halted=not again and target is not None and target.run_state == RunState.HALTED,
        crowded=crowded,
    )
