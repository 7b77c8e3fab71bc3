"""The policy table, row by row, with its history."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mailbound import policy
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
from mailbound.policy import Decision, History, Past, Sign
from world import DAY, NOW, Limits

LIMITS = Limits()


def failed(category: Category, *, permanent: bool = True, **sign: object) -> Sign:
    verdict = Verdict(category, permanent, None, "test")
    return Sign(**{"action": Action.FAILED, "verdict": verdict, "evidence": Evidence.SIGNED, **sign})


def said(action: Action, **sign: object) -> Sign:
    return failed(Category.UNCLEAR, permanent=False, **{"action": action, **sign})


def past(category: Category, *days_ago: float, permanent: bool = True) -> list[Past]:
    return [Past(NOW - days * DAY, category, permanent) for days in days_ago]


def decide(sign: Sign, history: History | None = None) -> Decision:
    return policy.decide(sign, history or History(), now=NOW, limits=LIMITS)


def is_dead(decision: Decision) -> bool:
    dead = decision.status is not None and decision.status.status is RecipientStatus.UNDELIVERABLE
    assert dead == (decision.opt_out is Source.HARD_BOUNCE), "an address dies with its recipient's opt-in"
    return dead


@pytest.mark.parametrize("evidence", [Evidence.DIRECT, Evidence.SIGNED])
@pytest.mark.parametrize("category", [Category.NO_SUCH_USER, Category.MOVED])
def test_no_such_user_is_dead_at_once(category: Category, evidence: Evidence) -> None:
    decision = decide(failed(category, evidence=evidence))
    assert is_dead(decision)
    assert decision.delivery is DeliveryEvent.REPORT_FAILED


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("category", Category)
def test_unsigned_evidence_changes_nothing(category: Category, action: Action) -> None:
    decision = decide(failed(category, action=action, evidence=Evidence.UNSIGNED))
    assert decision == Decision(Disposition.QUARANTINED, "nothing shows that it is genuine")


@pytest.mark.parametrize(
    ("days_ago", "dead"),
    [
        pytest.param((), False, id="the first"),
        pytest.param((1,), False, id="a second one too soon"),
        pytest.param((2, 1), False, id="a third one too soon"),
        pytest.param((3,), True, id="a second one after three days"),
    ],
)
@pytest.mark.parametrize("category", [Category.NO_SUCH_DOMAIN, Category.DISABLED])
def test_a_missing_domain_must_be_confirmed(
    category: Category, days_ago: tuple[int, ...], dead: bool
) -> None:
    assert is_dead(decide(failed(category), History(failures=past(category, *days_ago)))) == dead


@pytest.mark.parametrize(
    ("days_ago", "dead"),
    [
        pytest.param((), False, id="the first"),
        pytest.param((0, 0.1, 0.2), False, id="many on one day"),
        pytest.param((1,), False, id="on two days"),
        pytest.param((1, 2), True, id="on three days"),
    ],
)
def test_an_unclear_refusal_must_come_on_several_days(days_ago: tuple[float, ...], dead: bool) -> None:
    history = History(failures=past(Category.UNCLEAR, *days_ago))
    assert is_dead(decide(failed(Category.UNCLEAR), history)) == dead


@pytest.mark.parametrize(
    ("days_ago", "suspended"),
    [
        pytest.param((), False, id="the first"),
        pytest.param((5, 4, 3, 2), False, id="the fifth day"),
        pytest.param((5, 4, 3, 2, 1), True, id="the sixth day"),
        pytest.param((35, 34, 3, 2, 1), False, id="old ones are forgotten"),
        pytest.param((5, 4, 3, 2, 1, 0.1), False, id="today counted already"),
        pytest.param((5, 5, 5, 5, 5, 5, 4), False, id="a day counts once"),
    ],
)
@pytest.mark.parametrize(
    ("category", "permanent"),
    [
        (Category.MAILBOX_FULL, True),
        (Category.NETWORK, False),
        (Category.EXPIRED, True),
        (Category.UNCLEAR, False),
    ],
)
def test_soft_bounces_suspend_over_the_limit(
    category: Category, permanent: bool, days_ago: tuple[float, ...], suspended: bool
) -> None:
    history = History(failures=past(category, *days_ago, permanent=permanent))
    decision = decide(failed(category, permanent=permanent), history)
    assert not is_dead(decision)
    assert (decision.status is not None) == suspended
    if decision.status:
        assert decision.status.status is RecipientStatus.SUSPENDED
        assert decision.status.until == NOW + LIMITS.suspend_for


@pytest.mark.parametrize("category", [c for c in Category if c.fault in {Fault.SENDER, Fault.MESSAGE}])
def test_what_is_our_fault_never_touches_the_recipient(category: Category) -> None:
    history = History(failures=past(category, *range(1, 60)))
    decision = decide(failed(category), history)
    assert (decision.disposition, decision.status, decision.opt_out) == (Disposition.NOTED, None, None)


def test_a_delay_is_noted_however_often_it_comes() -> None:
    history = History(failures=past(Category.NETWORK, *range(20), permanent=False))
    assert decide(said(Action.DELAYED), history) == Decision(Disposition.NOTED, "a delay is information only")


def test_a_complaint_ends_the_wish_of_one_recipient_for_one_store() -> None:
    decision = decide(said(Action.COMPLAINED))
    assert (decision.opt_out, decision.whole_address, decision.status) == (Source.COMPLAINT, False, None)


def test_an_unsubscribe_counts_for_all_who_share_the_address() -> None:
    decision = decide(said(Action.UNSUBSCRIBED))
    assert (decision.opt_out, decision.whole_address) == (Source.UNSUBSCRIBE, True)


@pytest.mark.parametrize("status", [RecipientStatus.PROBATION, RecipientStatus.SUSPENDED])
def test_an_arrival_ends_probation_and_suspension(status: RecipientStatus) -> None:
    decision = decide(said(Action.DELIVERED), History(status=status))
    assert decision.status == policy.NewStatus(RecipientStatus.DELIVERABLE)
    assert decision.delivery is DeliveryEvent.REPORT_DELIVERED


def test_an_arrival_does_not_raise_the_dead() -> None:
    assert decide(said(Action.DELIVERED), History(status=RecipientStatus.UNDELIVERABLE)).status is None


def test_a_bounce_from_before_a_new_opt_in_changes_nothing() -> None:
    history = History(status=RecipientStatus.PROBATION, renewed_at=NOW - DAY)
    before = failed(Category.NO_SUCH_USER, marked_at=NOW - 2 * DAY)
    assert decide(before, history).disposition is Disposition.NOTED
    after = failed(Category.NO_SUCH_USER, marked_at=NOW - timedelta(hours=1))
    assert is_dead(decide(after, history))


def test_another_address_behind_ours_is_only_unclear() -> None:
    behind = failed(Category.NO_SUCH_USER, own_address=False)
    assert not is_dead(decide(behind))
    assert is_dead(decide(behind, History(failures=past(Category.UNCLEAR, 1, 2))))


def test_another_address_after_an_arrival_counts_for_nothing() -> None:
    behind = failed(Category.NO_SUCH_USER, own_address=False)
    decision = decide(behind, History(arrived=True, failures=past(Category.UNCLEAR, 1, 2)))
    assert (decision.disposition, decision.delivery, decision.status) == (Disposition.NOTED, None, None)


def test_a_halted_run_holds_what_would_change_a_recipient() -> None:
    decision = decide(failed(Category.NO_SUCH_USER, run_halted=True))
    assert (decision.disposition, decision.status, decision.opt_out) == (Disposition.HELD, None, None)


@pytest.mark.parametrize("category", [Category.NO_SUCH_USER, Category.UNCLEAR, Category.MAILBOX_FULL])
def test_nothing_more_happens_to_a_dead_address(category: Category) -> None:
    history = History(RecipientStatus.UNDELIVERABLE, failures=past(category, 6, 5, 4, 3, 2, 1))
    decision = decide(failed(category), history)
    assert (decision.disposition, decision.status, decision.opt_out) == (Disposition.NOTED, None, None)


def test_a_suspension_is_not_made_longer_by_what_comes_while_it_lasts() -> None:
    history = History(RecipientStatus.SUSPENDED, failures=past(Category.MAILBOX_FULL, 6, 5, 4, 3, 2, 1))
    decision = decide(failed(Category.MAILBOX_FULL), history)
    assert (decision.disposition, decision.status, decision.resend) == (Disposition.NOTED, None, False)


@pytest.mark.parametrize(
    ("sign", "resend"),
    [
        pytest.param({"category": Category.MAILBOX_FULL}, True, id="a full mailbox"),
        pytest.param({"category": Category.EXPIRED}, True, id="no way there"),
        pytest.param({"category": Category.NO_SUCH_USER, "permanent": False}, True, id="not now"),
        pytest.param({"category": Category.MAILBOX_FULL, "own_address": False}, False, id="somebody else's"),
        pytest.param({"category": Category.UNCLEAR}, False, id="perhaps dead"),
        pytest.param({"category": Category.NO_SUCH_USER}, False, id="dead"),
        pytest.param({"category": Category.BLOCKED}, False, id="our fault"),
        pytest.param({"category": Category.MAILBOX_FULL, "run_halted": True}, False, id="of a halted run"),
    ],
)
def test_only_what_came_back_softly_may_be_sent_again(sign: dict[str, Any], resend: bool) -> None:
    assert decide(failed(**sign)).resend == resend
