"""The two transition tables."""

from __future__ import annotations

import pytest

from mailbound.errors import InvalidTransition
from mailbound.lifecycle import (
    DELIVERY,
    OPEN,
    RUN,
    RUN_OPEN,
    DeliveryEvent,
    DeliveryState,
    RunEvent,
    RunState,
    advance,
    advance_run,
)

FROM_OUTSIDE = (DeliveryEvent.REPORT_FAILED, DeliveryEvent.REPORT_DELIVERED)


def test_every_state_has_its_row() -> None:
    assert set(DELIVERY) == set(DeliveryState)
    assert set(RUN) == set(RunState)


@pytest.mark.parametrize("event", FROM_OUTSIDE)
@pytest.mark.parametrize("state", DeliveryState)
def test_a_report_is_accepted_in_every_state(state: DeliveryState, event: DeliveryEvent) -> None:
    assert advance(state, event) in DeliveryState


@pytest.mark.parametrize(
    "state", sorted(set(DeliveryState) - OPEN - {DeliveryState.UNKNOWN, DeliveryState.BOUNCED})
)
def test_what_is_closed_stays_closed(state: DeliveryState) -> None:
    assert {after for event, after in DELIVERY[state].items() if event not in FROM_OUTSIDE} <= {state}


def test_a_late_acceptance_keeps_the_bounce() -> None:
    assert advance(DeliveryState.BOUNCED, DeliveryEvent.ACCEPT) is DeliveryState.BOUNCED


def test_only_a_marked_delivery_can_be_accepted_or_lost() -> None:
    for event in (DeliveryEvent.ACCEPT, DeliveryEvent.LOSE):
        with pytest.raises(InvalidTransition, match=f"queued cannot {event}"):
            advance(DeliveryState.QUEUED, event)


@pytest.mark.parametrize("state", sorted(set(RunState) - {RunState.CANCELLED, RunState.SENT}))
def test_every_run_that_is_not_over_can_be_cancelled(state: RunState) -> None:
    assert advance_run(state, RunEvent.CANCEL) is RunState.CANCELLED


@pytest.mark.parametrize("event", RunEvent)
def test_a_cancelled_run_stays_cancelled(event: RunEvent) -> None:
    with pytest.raises(InvalidTransition):
        advance_run(RunState.CANCELLED, event)


def test_a_halted_run_is_open_until_an_operator_decides() -> None:
    assert RunState.HALTED in RUN_OPEN
    assert set(RUN[RunState.HALTED]) == {RunEvent.RESUME, RunEvent.CANCEL}
