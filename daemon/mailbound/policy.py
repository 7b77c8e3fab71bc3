"""What is done about a verdict: the policy, as a pure function over one sign and the history of its address.

    the address, permanent: no such user, moved     undeliverable and out, at once
    no such domain, disabled                        the same after `confirm_events`, `confirm_apart` apart
    permanent but unclear                           the same after `unclear_events` on as many days
    the mailbox, the way; anything transient        soft: at most one a day; over `soft_limit` within
                                                    `soft_window` the address is suspended for `suspend_for`
    us, the message                                 nothing on the recipient; it feeds the circuit breaker
    delayed                                         noted
    delivered                                       a success: what came before it is forgotten
    complaint                                       out for that store
    unsubscribe                                     out for that store, for all who share the address

A new opt-in by the person themselves is a new chance: bounces of what was sent before it change nothing any more.
Doubt never suppresses: unsigned evidence is quarantined whatever it says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mailbound.config import Policy
from mailbound.lifecycle import DeliveryEvent
from mailbound.model import (
    Action,
    Category,
    Disposition,
    Evidence,
    Fault,
    RecipientStatus,
    Source,
    Verdict,
)

_AT_ONCE = frozenset({Category.NO_SUCH_USER, Category.MOVED})
_CONFIRMED = frozenset({Category.NO_SUCH_DOMAIN, Category.DISABLED})
_SOFT_FAULTS = frozenset({Fault.MAILBOX, Fault.PATH, Fault.ADDRESS, Fault.UNCLEAR})


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing that was said about one delivery."""

    action: Action
    verdict: Verdict
    evidence: Evidence
    own_address: bool = True  # it names the address that we mailed, not an alias or a forwarder
    marked_at: datetime | None = None  # when the delivery that it speaks of was sent; None: just now
    run_halted: bool = False
    doubt: str = ""  # why it is unsigned
    crowded: bool = False  # so many came back alike that it is rather our fault, or a provider's


@dataclass(frozen=True, slots=True)
class Past:
    """An earlier failure of the address that counts, with the verdict of its time."""

    at: datetime
    category: Category
    permanent: bool


@dataclass(frozen=True, slots=True)
class History:
    """What is known of an address before the sign."""

    status: RecipientStatus = RecipientStatus.DELIVERABLE
    renewed_at: datetime | None = None  # its owner opted in anew, or it is on probation since
    failures: Sequence[Past] = ()  # after the last success, of what was sent since `renewed_at`; oldest first
    arrived: bool = False  # an earlier report said that this delivery arrived somewhere


@dataclass(frozen=True, slots=True)
class NewStatus:
    """The recipient status that the address shall have."""

    status: RecipientStatus
    category: Category | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What shall be done. `opt_out` is the source of an opt-in `false` for the store of the delivery."""

    disposition: Disposition
    why: str
    delivery: DeliveryEvent | None = None
    status: NewStatus | None = None
    opt_out: Source | None = None
    whole_address: bool = False  # the opt-out holds for every recipient who shares the address
    resend: bool = False  # the same message may arrive another day


def decide(sign: Sign, history: History, *, now: datetime, limits: Policy) -> Decision:
    """Return what to do about `sign`."""
    if sign.evidence is Evidence.UNSIGNED:
        return Decision(Disposition.QUARANTINED, sign.doubt or "nothing shows that it is genuine")
    match sign.action:
        case Action.COMPLAINED:
            return Decision(
                Disposition.APPLIED, "the recipient complained: out for this store", opt_out=Source.COMPLAINT
            )
        case Action.UNSUBSCRIBED:
            return Decision(
                Disposition.APPLIED,
                "the recipient unsubscribed: out for this store",
                opt_out=Source.UNSUBSCRIBE,
                whole_address=True,
            )
        case Action.DELAYED:
            return Decision(Disposition.NOTED, "a delay is information only")
        case Action.DELIVERED | Action.RELAYED | Action.EXPANDED:
            return _arrived(sign, history)
        case Action.FAILED:
            return _failed(sign, history, now, limits)


def _arrived(sign: Sign, history: History) -> Decision:
    if sign.action is not Action.DELIVERED:
        return Decision(
            Disposition.NOTED, "it was passed on, and may still fail", DeliveryEvent.REPORT_DELIVERED
        )
    status = None
    if history.status in {RecipientStatus.PROBATION, RecipientStatus.SUSPENDED}:
        status = NewStatus(RecipientStatus.DELIVERABLE)
    disposition = Disposition.APPLIED if status else Disposition.NOTED
    return Decision(disposition, "it arrived", DeliveryEvent.REPORT_DELIVERED, status)


def _failed(sign: Sign, history: History, now: datetime, limits: Policy) -> Decision:
    failed = DeliveryEvent.REPORT_FAILED
    verdict = sign.verdict
    if not sign.own_address and history.arrived:
        return Decision(Disposition.NOTED, "our message had arrived; another address failed behind it", None)
    if verdict.fault in {Fault.SENDER, Fault.MESSAGE}:
        return Decision(Disposition.NOTED, "it is about us or the message, not about the recipient", failed)
    if sign.run_halted:
        return Decision(Disposition.HELD, "its run is halted: an operator decides first", failed)
    if _before_renewal(sign, history):
        return Decision(Disposition.NOTED, "it was sent before the recipient opted in anew", failed)
    if history.status is RecipientStatus.UNDELIVERABLE:
        return Decision(Disposition.NOTED, "the address is undeliverable already", failed)
    category = verdict.category if sign.own_address else Category.UNCLEAR
    if _permanent(verdict, category):
        return _hard(sign, history, category, now=now, limits=limits)
    decision = _soft(history, category, now, limits, failed)
    suspended = decision.status is not None or history.status is RecipientStatus.SUSPENDED
    return replace(decision, resend=sign.own_address and not suspended)


def _hard(sign: Sign, history: History, category: Category, *, now: datetime, limits: Policy) -> Decision:
    failed = DeliveryEvent.REPORT_FAILED
    if sign.crowded:
        return Decision(Disposition.HELD, "too many came back like it: an operator decides first", failed)
    reason = _death(category, history, now, limits)
    if reason is None:
        return Decision(Disposition.NOTED, _not_yet(category, limits), failed)
    dead = NewStatus(RecipientStatus.UNDELIVERABLE, category)
    return Decision(Disposition.APPLIED, reason, failed, dead, Source.HARD_BOUNCE)


def _before_renewal(sign: Sign, history: History) -> bool:
    if history.renewed_at is None or sign.marked_at is None:
        return False
    return sign.marked_at < history.renewed_at


def _permanent(verdict: Verdict, category: Category) -> bool:
    return verdict.permanent and category.fault in {Fault.ADDRESS, Fault.UNCLEAR}


def _death(category: Category, history: History, now: datetime, limits: Policy) -> str | None:
    """Return why the address is dead now, or None if that is not certain yet."""
    if category in _AT_ONCE:
        return f"{category}: the address is dead"
    earlier = [past for past in history.failures if past.permanent and past.category.fault in _DEADLY]
    if category in _CONFIRMED:
        events = [past for past in earlier if past.category in _CONFIRMED]
        apart = now - events[0].at if events else timedelta(0)
        if len(events) + 1 >= limits.confirm_events and apart >= limits.confirm_apart:
            return f"{category}, confirmed {len(events) + 1} times over {apart.days} days"
        return None
    days = {past.at.date() for past in earlier} | {now.date()}
    if len(days) >= limits.unclear_events:
        return f"permanent failures on {len(days)} days"
    return None


_DEADLY = frozenset({Fault.ADDRESS, Fault.UNCLEAR})


def _not_yet(category: Category, limits: Policy) -> str:
    if category in _CONFIRMED:
        return (
            f"{category}: counts after {limits.confirm_events} events, {limits.confirm_apart.days} days apart"
        )
    return f"permanent but unclear: counts after failures on {limits.unclear_events} days"


def _soft(
    history: History, category: Category, now: datetime, limits: Policy, failed: DeliveryEvent
) -> Decision:
    score = soft_score(history.failures, now=now, limits=limits)
    today = any(day == now.date() for day in _soft_days(history.failures, now, limits))
    if today:
        return Decision(
            Disposition.NOTED, f"soft: already counted today ({score} of {limits.soft_limit})", failed
        )
    score += 1
    if score > limits.soft_limit and history.status is not RecipientStatus.SUSPENDED:
        until = now + limits.suspend_for
        suspended = NewStatus(RecipientStatus.SUSPENDED, category, until)
        return Decision(Disposition.APPLIED, f"soft bounces on {score} days: suspended", failed, suspended)
    return Decision(Disposition.NOTED, f"soft: {score} of {limits.soft_limit}", failed)


def soft_score(failures: Sequence[Past], *, now: datetime, limits: Policy) -> int:
    """Return on how many days within the window the address failed softly."""
    return len(set(_soft_days(failures, now, limits)))


def _soft_days(failures: Sequence[Past], now: datetime, limits: Policy) -> Iterator[object]:
    for past in failures:
        hard = past.permanent and past.category.fault in _DEADLY
        if not hard and past.category.fault in _SOFT_FAULTS and now - past.at <= limits.soft_window:
            yield past.at.date()
