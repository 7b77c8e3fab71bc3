"""The scheduler, tick by tick, with a clock of its own."""

from __future__ import annotations

import asyncio
import shutil
import zoneinfo
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mailbound.config import Breaker
from mailbound.database import activities, leases, nodes, runs, schema, tables
from mailbound.database.engine import Database
from mailbound.database.leases import Lease
from mailbound.lifecycle import DeliveryState, RunEvent, RunState
from mailbound.scheduler import Parts, Scheduler
from world import NODE, NOW, World

HOUR = timedelta(hours=1)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Stage:
    """A scheduler on a database with two recipients."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.clock = Clock()
        template = folder / "templates" / "spring"
        template.mkdir(parents=True)
        (template / "subject.txt").write_text("Spring")
        (template / "text.txt").write_text("Hello {{ name }}")
        self.template = template
        lease = Lease(database, "scheduling", node_id=NODE)
        self._parts = Parts(
            database, folder / "templates", Breaker(), node_id=NODE, lease=lease, clock=self.clock
        )
        self.restart()

    def restart(self) -> None:
        """Let another daemon come after this one."""
        self.scheduler = Scheduler(self._parts)

    def tick(self, at: datetime | None = None, times: int = 1) -> None:
        """Tick, perhaps at another time."""
        self.clock.now = at or self.clock.now
        for _ in range(times):
            asyncio.run(self.scheduler.tick())

    def plan(self, name: str = "spring", **plan: Any) -> None:
        """Create an activity."""
        with self.database.begin() as connection:
            world = World.__new__(World)
            world.connection = connection
            world.activity(name, **plan)

    def runs(self, name: str = "spring") -> list[tuple[datetime, str]]:
        """Return when the runs of an activity are due, and their states, the earliest first."""
        with self.database.look() as connection:
            found = runs.of_activity(connection, activities.find(connection, name).id)
        return [(run.occurrence_at, str(run.state)) for run in reversed(found)]

    def states(self) -> list[str]:
        """Return the states of all deliveries."""
        with self.database.look() as connection:
            return list(connection.execute(sa.select(tables.delivery.c.state).order_by("id")).scalars())

    def note(self) -> str:
        """Return the note of the latest run."""
        with self.database.look() as connection:
            query = sa.select(tables.run.c.note).order_by(tables.run.c.id.desc()).limit(1)
            return str(connection.execute(query).scalar_one())

    def move(self, event: RunEvent) -> None:
        """Let an operator move the only open run."""
        with self.database.begin() as connection:
            open_runs = runs.in_state(connection, RunState.SENDING, RunState.PAUSED, RunState.SCHEDULED)
            runs.move(connection, open_runs[0].id, event, now=self.clock.now)


@contextmanager
def staged(url: str, folder: Path) -> Iterator[Stage]:
    """Give a stage."""
    database = Database(url, checkpoints=True)
    schema.upgrade(database)
    with database.begin() as connection:
        world = World(connection)
        world.person("anna")
        world.person("bert")
        world.person("carl", opted_in=False)
    try:
        yield Stage(database, folder)
    finally:
        database.close()


def test_an_activity_starts_at_its_time(database_url: str, tmp_path: Path) -> None:
    with staged(database_url, tmp_path) as stage:
        stage.plan(starts_at=NOW + HOUR)
        stage.tick()
        assert stage.runs() == [(NOW + HOUR, "scheduled")]
        stage.tick(NOW + HOUR - timedelta(seconds=1))
        assert stage.states() == []
        stage.tick(NOW + HOUR)
        assert stage.runs() == [(NOW + HOUR, "sending")]
        stage.tick()
        assert stage.states() == ["queued", "queued", "skipped"]
        assert stage.runs() == [(NOW + HOUR, "sending")]


def test_a_start_that_is_too_late_asks_the_operator(sqlite_url: str, tmp_path: Path) -> None:
    with staged(sqlite_url, tmp_path) as stage:
        stage.plan(starts_at=NOW, grace=HOUR)
        stage.tick(NOW + HOUR + timedelta(seconds=1))
        assert stage.runs() == [(NOW, "missed")]
        assert stage.note() == "it could have started for 60 min"
        assert stage.states() == []


def test_a_run_waits_for_its_window_and_its_grace_waits_too(sqlite_url: str, tmp_path: Path) -> None:
    window = {"days": ["wed"], "from": "09:00", "to": "17:00"}
    with staged(sqlite_url, tmp_path) as stage:
        stage.plan(starts_at=NOW, grace=HOUR, window=window)
        stage.tick(NOW + 2 * HOUR)
        assert stage.runs() == [(NOW, "scheduled")]
        stage.tick(datetime(2026, 11, 25, 9, 30, tzinfo=UTC))
        assert stage.runs() == [(NOW, "sending")]


def test_a_recurring_activity_plans_one_run_ahead(sqlite_url: str, tmp_path: Path) -> None:
    with staged(sqlite_url, tmp_path) as stage:
        stage.plan(starts_at=None, cron="0 * * * *")
        stage.tick()
        assert stage.runs() == [(NOW + HOUR, "scheduled")]
        stage.tick(NOW + HOUR, times=3)
        assert stage.runs() == [(NOW + HOUR, "sending"), (NOW + 2 * HOUR, "scheduled")]


def test_due_times_that_passed_unseen_are_missed_one_by_one(sqlite_url: str, tmp_path: Path) -> None:
    with staged(sqlite_url, tmp_path) as stage:
        stage.plan(starts_at=None, cron="0 * * * *", grace=timedelta(minutes=10))
        stage.tick(NOW + 3 * HOUR + timedelta(minutes=5))
        assert stage.runs() == [
            (NOW + HOUR, "missed"),
            (NOW + 2 * HOUR, "missed"),
            (NOW + 3 * HOUR, "sending"),
            (NOW + 4 * HOUR, "scheduled"),
        ]


def test_a_run_waits_for_the_one_before_it_and_is_missed_after_its_grace(
    sqlite_url: str, tmp_path: Path
) -> None:
    with staged(sqlite_url, tmp_path) as stage:
        stage.plan(starts_at=None, cron="0 * * * *", grace=timedelta(minutes=30))
        stage.tick(NOW + HOUR, times=2)
        stage.tick(NOW + 2 * HOUR)
        assert [state for _, state in stage.runs()] == ["sending", "scheduled", "scheduled"]
        stage.tick(NOW + 2 * HOUR + timedelta(minutes=31))
        assert [state for _, state in stage.runs()] == ["sending", "missed", "scheduled"]


def test_a_broken_template_fails_the_run_and_says_where(sqlite_url: str, tmp_path: Path) -> None:
    with staged(sqlite_url, tmp_path) as stage:
        (stage.template / "text.txt").write_text("Hello {{ name")
        stage.plan()
        stage.tick()
        assert stage.runs() == [(NOW, "failed")]
        assert "text.txt, line 1" in stage.note()


def test_editing_a_template_changes_no_run_under_way(sqlite_url: str, tmp_path: Path) -> None:
    with staged(sqlite_url, tmp_path) as stage:
        stage.plan()
        stage.tick(times=2)
        (stage.template / "text.txt").write_text("Something else")
        stage.tick()
        with stage.database.look() as connection:
            (run,) = runs.in_state(connection, RunState.SENDING)
            assert b"Hello {{ name }}" in runs.frozen_template(connection, run.template_id or 0)


def test_a_run_is_sent_when_nothing_is_open(sqlite_url: str, tmp_path: Path) -> None:
    with staged(sqlite_url, tmp_path) as stage:
        stage.plan()
        stage.tick(times=2)
        with stage.database.begin() as connection:
            connection.execute(
                tables.delivery.update().where(tables.delivery.c.state == "queued").values(state="accepted")
            )
        stage.tick()
        assert stage.runs() == [(NOW, "sent")]


def test_what_is_too_old_expires(database_url: str, tmp_path: Path) -> None:
    with staged(database_url, tmp_path) as stage:
        stage.plan(expires_after=2 * HOUR)
        stage.tick(times=2)
        stage.tick(NOW + 2 * HOUR)
        assert stage.states() == ["expired", "expired", "skipped"]
        assert stage.runs() == [(NOW, "sent")]


def test_a_cancelled_run_leaves_nothing_in_the_queue(database_url: str, tmp_path: Path) -> None:
    with staged(database_url, tmp_path) as stage:
        stage.plan()
        stage.tick(times=2)
        stage.move(RunEvent.CANCEL)
        stage.tick()
        assert stage.states() == ["cancelled", "cancelled", "skipped"]
        assert stage.runs() == [(NOW, "cancelled")]


def test_a_paused_run_stays_as_it_is(sqlite_url: str, tmp_path: Path) -> None:
    with staged(sqlite_url, tmp_path) as stage:
        stage.plan(expires_after=2 * HOUR)
        stage.tick(times=2)
        stage.move(RunEvent.PAUSE)
        stage.tick(NOW + 3 * HOUR)
        assert stage.runs() == [(NOW, "paused")]
        assert stage.states() == ["queued", "queued", "skipped"]


def test_an_empty_segment_is_sent_at_once(sqlite_url: str, tmp_path: Path) -> None:
    with staged(sqlite_url, tmp_path) as stage:
        with stage.database.begin() as connection:
            connection.execute(
                tables.segment.insert().values(name="nobody", condition="country = 'XX'", created_at=NOW)
            )
        stage.plan(segment="nobody")
        stage.tick(times=3)
        assert stage.runs() == [(NOW, "sent")]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_a_local_time_follows_the_zone(sqlite_url: str, tmp_path: Path, zone: str) -> None:
    with staged(sqlite_url, tmp_path) as stage:
        stage.plan(starts_at=None, cron="30 2 * * *", time_zone=zone)
        stage.tick()
        ((due, _),) = stage.runs()
        assert (
            due
            == {
                "Europe/Berlin": datetime(2026, 11, 25, 1, 30, tzinfo=UTC),
                "America/New_York": datetime(2026, 11, 25, 7, 30, tzinfo=UTC),
            }[zone]
        )


_CHANGES = {
    # The day that lacks the local time, or has it twice; and when the runs of three days are due.
    "Berlin leaps": ("Europe/Berlin", "30 2 * * *", "2027-03-26 12:00", ["27 01:30", "28 01:00", "29 00:30"]),
    "Berlin repeats": (
        "Europe/Berlin",
        "30 2 * * *",
        "2026-10-23 12:00",
        ["24 00:30", "25 00:30", "26 01:30"],
    ),
    "New York leaps": (
        "America/New_York",
        "30 2 * * *",
        "2027-03-12 12:00",
        ["13 07:30", "14 07:00", "15 06:30"],
    ),
    "New York repeats": (
        "America/New_York",
        "30 1 * * *",
        "2026-10-30 12:00",
        ["31 05:30", "01 05:30", "02 06:30"],
    ),
    "Lord Howe leaps": (
        "Australia/Lord_Howe",
        "15 2 * * *",
        "2026-10-02 00:00",
        ["02 15:45", "03 15:30", "04 15:15"],
    ),
    "Lord Howe repeats": (
        "Australia/Lord_Howe",
        "45 1 * * *",
        "2027-04-02 00:00",
        ["02 14:45", "03 14:45", "04 15:15"],
    ),
}


@pytest.mark.parametrize("change", _CHANGES.values(), ids=_CHANGES)
def test_a_change_of_the_clocks_costs_no_run_and_brings_no_second(
    sqlite_url: str, tmp_path: Path, change: tuple[str, str, str, list[str]]
) -> None:
    zone, cron, text, due = change
    begin = datetime.fromisoformat(text).replace(tzinfo=UTC)
    with staged(sqlite_url, tmp_path) as stage:
        stage.plan(starts_at=None, cron=cron, time_zone=zone)
        with stage.database.begin() as connection:
            activities.plan_through(connection, 1, begin)
        for hours in range(72):
            stage.tick(begin + hours * HOUR)
        *came, (_, state) = stage.runs()
        assert [f"{moment:%d %H:%M}" for moment, _ in came] == due
        assert state == "scheduled"


@pytest.fixture
def zone_of(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Return what gives the zone Test/Zone the clocks of another one, as an update of the system would."""
    system = zoneinfo.TZPATH
    (tmp_path / "zones" / "Test").mkdir(parents=True)

    def change(other: str) -> None:
        source = next(path for folder in system if (path := Path(folder) / other).exists())
        shutil.copy(source, tmp_path / "zones" / "Test" / "Zone")
        zoneinfo.reset_tzpath([str(tmp_path / "zones"), *system])
        zoneinfo.ZoneInfo.clear_cache()

    yield change
    zoneinfo.reset_tzpath(system)
    zoneinfo.ZoneInfo.clear_cache()


def test_a_government_may_move_the_clocks_of_runs_to_come(
    database_url: str, tmp_path: Path, zone_of: Callable[[str], None]
) -> None:
    with staged(database_url, tmp_path) as stage:
        zone_of("Etc/GMT-1")  # an hour before Greenwich
        stage.plan(starts_at=None, cron="0 16 * * *", time_zone="Test/Zone")
        stage.plan("fixed", starts_at=NOW + 3 * HOUR)
        stage.tick(times=2)
        assert stage.runs() == [(NOW + 3 * HOUR, "scheduled")]
        zone_of("Etc/GMT-2")
        stage.restart()
        stage.tick(times=2)
        assert stage.runs() == [(NOW + 2 * HOUR, "scheduled")]
        assert stage.runs("fixed") == [(NOW + 3 * HOUR, "scheduled")]


def test_what_was_due_before_the_clocks_were_moved_does_not_come_again(
    sqlite_url: str, tmp_path: Path, zone_of: Callable[[str], None]
) -> None:
    with staged(sqlite_url, tmp_path) as stage:
        zone_of("Etc/GMT-2")
        stage.plan(starts_at=None, cron="0 16 * * *", time_zone="Test/Zone")
        stage.tick()
        stage.tick(NOW + 2 * HOUR, times=3)
        first = (NOW + 2 * HOUR, "sending")
        assert stage.runs() == [first, (NOW + 26 * HOUR, "scheduled")]
        zone_of("Etc/GMT-1")
        stage.restart()
        stage.tick(NOW + 2.5 * HOUR, times=2)
        assert stage.runs() == [first, (NOW + 3 * HOUR, "scheduled")], (
            "the law says sixteen o'clock is to come"
        )
        zone_of("Etc/GMT-3")
        stage.restart()
        stage.tick(times=2)
        assert stage.runs() == [first, (NOW + 25 * HOUR, "scheduled")], "and now that it is over"


def test_of_two_nodes_one_schedules_until_it_leaves(postgres_url: str, tmp_path: Path) -> None:
    with staged(postgres_url, tmp_path) as stage:
        stage.plan(starts_at=NOW)
        with stage.database.begin() as connection:
            other = nodes.join(connection, "other", now=NOW)
            leases.take(connection, "scheduling", node_id=other)
        asyncio.run(_two_ticks(stage.scheduler))
        assert stage.runs() == []
        with stage.database.begin() as connection:
            nodes.leave(connection, other)
        asyncio.run(_two_ticks(stage.scheduler))
        assert stage.runs() == [(NOW, "sending")]


async def _two_ticks(scheduler: Scheduler) -> None:
    stopping = asyncio.Event()
    running = asyncio.create_task(scheduler.run(stopping))
    for _ in range(2):
        before = scheduler.ticked_at
        while scheduler.ticked_at == before:  # noqa: ASYNC110 - it tells when it moved, and calls nobody
            await asyncio.sleep(0.01)
    stopping.set()
    await running


def test_what_came_back_softly_is_sent_again_by_a_run_that_was_over(
    database_url: str, tmp_path: Path
) -> None:
    with staged(database_url, tmp_path) as stage:
        stage.plan(starts_at=NOW)
        stage.tick(times=2)
        with stage.database.begin() as connection:
            values = {"state": "bounced", "next_attempt_at": NOW + HOUR}
            queued = tables.delivery.c.state == "queued"
            connection.execute(tables.delivery.update().where(queued).values(values))
        stage.tick()
        assert stage.runs() == [(NOW, "sent")]
        stage.tick(NOW + HOUR)
        assert stage.runs() == [(NOW, "sending")]
        assert stage.states() == ["queued", "queued", "skipped"]
        stage.tick()
        assert stage.states() == ["queued", "queued", "skipped"]


@pytest.mark.parametrize("stopped", [None, RunEvent.PAUSE, RunEvent.HALT])
def test_a_run_that_sends_again_keeps_nobody_waiting_unless_it_was_stopped(
    sqlite_url: str, tmp_path: Path, stopped: RunEvent | None
) -> None:
    with staged(sqlite_url, tmp_path) as stage:
        stage.plan(starts_at=None, cron="0 * * * *")
        stage.tick(NOW + HOUR, times=2)
        with stage.database.begin() as connection:
            connection.execute(
                tables.delivery.update().values(state="bounced", next_attempt_at=NOW + 2 * HOUR)
            )
            (run,) = runs.in_state(connection, RunState.SENDING)
            runs.move(connection, run.id, RunEvent.FINISH, now=NOW + HOUR)
            runs.move(connection, run.id, RunEvent.REOPEN, now=NOW + HOUR)
            if stopped:
                runs.move(connection, run.id, stopped, now=NOW + HOUR)
        stage.tick(NOW + 2 * HOUR)
        _, second, _ = (state for _, state in stage.runs())
        assert second == ("scheduled" if stopped else "sending")


# --- a clock that is set back ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempt", "reason", "due", "then"),
    [
        pytest.param(0, None, timedelta(), -HOUR, id="not tried"),
        pytest.param(0, "paced", timedelta(seconds=20), -HOUR, id="given a turn"),
        pytest.param(0, None, 5 * HOUR, 5 * HOUR, id="before its hours"),
        pytest.param(1, None, HOUR / 2, HOUR / 2, id="tried"),
    ],
)
@pytest.mark.parametrize("event", [None, RunEvent.PAUSE], ids=["sending", "paused"])
def test_a_clock_that_is_set_back_lets_nobody_wait_who_was_not_tried(
    database_url: str,
    tmp_path: Path,
    *,
    attempt: int,
    reason: str | None,
    due: timedelta,
    then: timedelta,
    event: RunEvent | None,
) -> None:
    with staged(database_url, tmp_path) as stage:
        stage.plan()
        stage.tick(times=3)
        if event:
            stage.move(event)
        queued = tables.delivery.c.state == DeliveryState.QUEUED
        values = {"attempt": attempt, "reason": reason, "next_attempt_at": NOW + due}
        with stage.database.begin() as connection:
            assert connection.execute(tables.delivery.update().where(queued).values(values)).rowcount == 2
        stage.tick(NOW - HOUR)
        with stage.database.look() as connection:
            query = sa.select(tables.delivery.c.next_attempt_at, tables.delivery.c.reason).where(queued)
            found = connection.execute(query.distinct()).all()
        assert found == [(NOW + then, None)]
