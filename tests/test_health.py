"""What the log hears of a database that fails: neither nothing nor a line for each who waits for it."""

from __future__ import annotations

import structlog.testing

from mailbound.database.health import Health


def _told(story: list[tuple[float, str]]) -> list[tuple[str, float]]:
    """Let so many seconds pass before each step, and return each event with how long the fault has lasted."""
    now = 0.0
    health = Health(lambda: now)
    with structlog.testing.capture_logs() as log:
        for seconds, step in story:
            now += seconds
            if step == "wrote":
                health.wrote()
            else:
                health.failed("the disk is full")
    return [(entry["event"], entry["down_for"]) for entry in log]


def test_a_database_that_is_well_is_not_worth_a_word() -> None:
    assert _told([(1, "wrote"), (1, "wrote")]) == []


def test_a_fault_is_told_at_once_and_then_once_a_minute() -> None:
    assert _told([(1, "failed")] * 130) == [
        ("database.failed", 0.0),
        ("database.failed", 60.0),
        ("database.failed", 120.0),
    ]


def test_it_is_well_again_once_nothing_has_failed_for_a_while() -> None:
    one_of_many_succeeds = [(1, "failed"), (1, "wrote"), (1, "failed"), (1, "wrote")]
    assert _told(one_of_many_succeeds) == [("database.failed", 0.0)]
    assert _told([*one_of_many_succeeds, (2, "wrote"), (1, "wrote"), (1, "failed")]) == [
        ("database.failed", 0.0),
        ("database.recovered", 2.0),
        ("database.failed", 0.0),
    ]
