"""The lives of a run and of a delivery, as two transition tables. Only `database` writes a state.

    run        scheduled ──start──> sending <──pause / resume──> paused
                   │                  │  └──halt──> halted ──resume──> sending
                   ├──miss──> missed ─┼─start─> sending
                   └──cancel─────────>┴──finish──> sent        cancelled, failed

    delivery   queued ──claim──> claimed ──mark──> sending ──accept──> accepted ──report_failed──> bounced
                  ^                 │                │  └──lose──> unknown ──resend──> queued
                  ├─────release─────┘                │
                  ├─────defer / release──────────────┘
                  └──> refused, expired, skipped, failed, cancelled

What happens inside mailbound (claim, mark, accept, …) is legal only where the table has it. What is reported from
outside (`REPORT_FAILED`, `REPORT_DELIVERED`) is legal in every state.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from mailbound.errors import InvalidTransition


class RunState(StrEnum):
    """Where a run stands."""

    SCHEDULED = "scheduled"
    SENDING = "sending"
    PAUSED = "paused"
    HALTED = "halted"  # the circuit breaker opened; an operator must look
    SENT = "sent"
    CANCELLED = "cancelled"
    MISSED = "missed"  # its grace passed before it could start; an operator may still start it
    FAILED = "failed"  # it could not start: its template or segment is broken


class RunEvent(StrEnum):
    """What can happen to a run."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    HALT = "halt"
    FINISH = "finish"
    CANCEL = "cancel"
    MISS = "miss"
    FAIL = "fail"
    REOPEN = "reopen"  # a delivery in doubt or a soft bounce is to be sent again


class DeliveryState(StrEnum):
    """Where a delivery stands: one message to one recipient in one run."""

    QUEUED = "queued"
    CLAIMED = "claimed"  # a node composes it
    SENDING = "sending"  # marked: its final dot may be on the wire
    ACCEPTED = "accepted"  # the relay took responsibility for it (RFC 5321 §6.1)
    DELIVERED = "delivered"  # a report says so
    BOUNCED = "bounced"  # a report says that it failed
    REFUSED = "refused"  # the relay answered 5yz
    EXPIRED = "expired"  # it could not be handed over before the activity's expiry
    UNKNOWN = "unknown"  # the connection broke after the final dot; the relay may hold the message
    SKIPPED = "skipped"  # not wanted, not deliverable, or the same address twice
    FAILED = "failed"  # no message could be composed for this recipient
    CANCELLED = "cancelled"


class DeliveryEvent(StrEnum):
    """What can happen to a delivery."""

    CLAIM = "claim"
    RELEASE = "release"  # a claim is given back: no attempt is counted
    MARK = "mark"
    ACCEPT = "accept"
    DEFER = "defer"
    REFUSE = "refuse"
    LOSE = "lose"
    RESEND = "resend"
    EXPIRE = "expire"
    SKIP = "skip"
    FAIL = "fail"
    CANCEL = "cancel"
    REPORT_FAILED = "report_failed"
    REPORT_DELIVERED = "report_delivered"


_R, _E = RunState, RunEvent

RUN: Mapping[RunState, Mapping[RunEvent, RunState]] = {
    _R.SCHEDULED: {_E.START: _R.SENDING, _E.MISS: _R.MISSED, _E.CANCEL: _R.CANCELLED, _E.FAIL: _R.FAILED},
    _R.SENDING: {
        _E.PAUSE: _R.PAUSED,
        _E.HALT: _R.HALTED,
        _E.FINISH: _R.SENT,
        _E.CANCEL: _R.CANCELLED,
        _E.FAIL: _R.FAILED,
    },
    _R.PAUSED: {_E.RESUME: _R.SENDING, _E.CANCEL: _R.CANCELLED},
    _R.HALTED: {_E.RESUME: _R.SENDING, _E.CANCEL: _R.CANCELLED},
    _R.MISSED: {_E.START: _R.SENDING, _E.CANCEL: _R.CANCELLED},
    _R.SENT: {_E.REOPEN: _R.SENDING},
    _R.FAILED: {_E.START: _R.SENDING, _E.CANCEL: _R.CANCELLED},
    _R.CANCELLED: {},
}

_D, _V = DeliveryState, DeliveryEvent

_REPORTED = {_V.REPORT_FAILED: _D.BOUNCED, _V.REPORT_DELIVERED: _D.DELIVERED}

# What becomes of a claim. A report may overtake it, and then what the report said stays.
_SETTLED = (_V.ACCEPT, _V.DEFER, _V.REFUSE, _V.LOSE, _V.RELEASE, _V.EXPIRE, _V.SKIP, _V.FAIL)

DELIVERY: Mapping[DeliveryState, Mapping[DeliveryEvent, DeliveryState]] = {
    _D.QUEUED: {
        _V.CLAIM: _D.CLAIMED,
        _V.EXPIRE: _D.EXPIRED,
        _V.SKIP: _D.SKIPPED,
        _V.CANCEL: _D.CANCELLED,
        **_REPORTED,
    },
    _D.CLAIMED: {
        _V.MARK: _D.SENDING,
        _V.RELEASE: _D.QUEUED,
        # A standby that lagged forgets a mark when it takes over; what the relay said of it counts all the same.
        _V.ACCEPT: _D.ACCEPTED,
        _V.LOSE: _D.UNKNOWN,
        _V.DEFER: _D.QUEUED,
        _V.REFUSE: _D.REFUSED,
        _V.EXPIRE: _D.EXPIRED,
        _V.SKIP: _D.SKIPPED,
        _V.FAIL: _D.FAILED,
        _V.CANCEL: _D.CANCELLED,
        **_REPORTED,
    },
    _D.SENDING: {
        _V.ACCEPT: _D.ACCEPTED,
        _V.DEFER: _D.QUEUED,
        _V.REFUSE: _D.REFUSED,
        _V.RELEASE: _D.QUEUED,
        _V.LOSE: _D.UNKNOWN,
        **_REPORTED,
    },
    _D.ACCEPTED: {**_REPORTED},
    # A relay may report a success for one hop and a failure for the next: failure has the last word.
    _D.DELIVERED: {
        **dict.fromkeys(_SETTLED, _D.DELIVERED),
        _V.REPORT_FAILED: _D.BOUNCED,
        _V.REPORT_DELIVERED: _D.DELIVERED,
    },
    _D.BOUNCED: {
        **dict.fromkeys(_SETTLED, _D.BOUNCED),
        _V.RESEND: _D.QUEUED,
        _V.REPORT_FAILED: _D.BOUNCED,
        _V.REPORT_DELIVERED: _D.BOUNCED,
    },
    _D.REFUSED: {_V.REPORT_FAILED: _D.REFUSED, _V.REPORT_DELIVERED: _D.REFUSED},
    _D.EXPIRED: {_V.REPORT_FAILED: _D.EXPIRED, _V.REPORT_DELIVERED: _D.EXPIRED},
    _D.UNKNOWN: {_V.RESEND: _D.QUEUED, _V.ACCEPT: _D.ACCEPTED, _V.CANCEL: _D.CANCELLED, **_REPORTED},
    _D.SKIPPED: {_V.REPORT_FAILED: _D.SKIPPED, _V.REPORT_DELIVERED: _D.SKIPPED},
    _D.FAILED: {_V.REPORT_FAILED: _D.FAILED, _V.REPORT_DELIVERED: _D.FAILED},
    _D.CANCELLED: {_V.REPORT_FAILED: _D.CANCELLED, _V.REPORT_DELIVERED: _D.CANCELLED},
}

OPEN = frozenset({_D.QUEUED, _D.CLAIMED, _D.SENDING})
"""The states in which a delivery still has something to do. A run is sent when it has none of these."""

RUN_OPEN = frozenset({_R.SCHEDULED, _R.SENDING, _R.PAUSED, _R.HALTED})
"""The states in which a run still has something to do."""


def advance(state: DeliveryState, event: DeliveryEvent) -> DeliveryState:
    """Return the state of a delivery after `event`. Raises InvalidTransition if there is no such step."""
    try:
        return DELIVERY[state][event]
    except KeyError:
        raise InvalidTransition(f"a delivery that is {state} cannot {event}") from None


def advance_run(state: RunState, event: RunEvent) -> RunState:
    """Return the state of a run after `event`. Raises InvalidTransition if there is no such step."""
    try:
        return RUN[state][event]
    except KeyError:
        raise InvalidTransition(f"a run that is {state} cannot {event}") from None


def sources(event: DeliveryEvent) -> tuple[DeliveryState, ...]:
    """Return the states from which `event` is legal, for the WHERE of a statement."""
    return tuple(state for state, steps in DELIVERY.items() if event in steps)
