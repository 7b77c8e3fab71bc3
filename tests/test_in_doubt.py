"""Deliveries in doubt: an operator says that they were sent, or has them sent again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import command
from box import Box
from mailbound.database import activities, deliveries, doubtful, runs, schema, tables, tally, token_keys
from mailbound.database.deliveries import Settlement
from mailbound.errors import InputError
from mailbound.lifecycle import DeliveryEvent, RunEvent, RunState
from mailbound.model import Evidence
from test_bounces import record
from world import DAY, NODE, NOW, World, mark, world

LOST = "the connection broke"


def lose(here: World, run_id: int, *, at: datetime = NOW) -> dict[str, int]:
    """Send all that is due and never hear of it; return the deliveries by external id."""
    claimed = here.claim(run_id, at=at)
    marked = mark(here.connection, [each.id for each in claimed], node_id=NODE, now=at)
    lost = [Settlement(each, DeliveryEvent.LOSE, reply=LOST) for each in sorted(marked)]
    deliveries.settle(here.connection, lost, node_id=NODE, now=at)
    return {each.external_id: each.id for each in claimed}


def scene(here: World, *, at: datetime = NOW, **plan: Any) -> tuple[int, dict[str, int]]:
    """Return a run that is sent but for two deliveries in doubt, and those."""
    for name in ("anna", "bert"):
        here.person(name)
    run_id = here.sending(here.activity(in_doubt="hold", **plan), at=at)
    lost = lose(here, run_id, at=at)
    runs.move(here.connection, run_id, RunEvent.FINISH, now=at)
    return run_id, lost


def test_what_was_sent_counts_as_accepted(database_url: str) -> None:
    with world(database_url) as here:
        run_id, lost = scene(here)
        assert [(row.activity, row.external_id, row.reply) for row in doubtful.found(here.connection)] == [
            ("spring", "anna", LOST),
            ("spring", "bert", LOST),
        ]
        assert [tuple(row) for row in doubtful.counts(here.connection)] == [("spring", 2)]
        assert doubtful.was_sent(here.connection, [lost["anna"]], who="ada", now=NOW) == 1
        assert here.states(run_id) == {"anna": "accepted", "bert": "unknown"}
        assert tally.of_run(here.connection, run_id) == {"accepted": 1, "unknown": 1}
        reply = sa.select(tables.delivery.c.reply).where(tables.delivery.c.id == lost["anna"])
        assert here.connection.execute(reply).scalar() == "ada says that it was sent"
        assert tally.differences(here.connection) == []


def test_what_is_sent_again_reopens_its_run_and_keeps_its_number(database_url: str) -> None:
    with world(database_url) as here:
        run_id, lost = scene(here)
        assert doubtful.send_again(here.connection, list(lost.values()), now=NOW) == 2
        assert runs.find(here.connection, run_id).state is RunState.SENDING
        assert runs.find(here.connection, run_id).reopened
        assert here.send(run_id) == lost
        assert doubtful.found(here.connection) == []
        assert tally.differences(here.connection) == []


def test_what_a_report_settled_first_is_left_alone(sqlite_url: str) -> None:
    with world(sqlite_url) as here:
        run_id, lost = scene(here)
        record(here, lost["anna"], evidence=Evidence.SIGNED)
        ids = list(lost.values())
        assert doubtful.was_sent(here.connection, ids, who="ada", now=NOW) == 1
        assert here.states(run_id) == {"anna": "bounced", "bert": "accepted"}
        assert doubtful.send_again(here.connection, ids, now=NOW) == 0
        assert runs.find(here.connection, run_id).state is RunState.SENT


def test_a_report_has_the_last_word(sqlite_url: str) -> None:
    with world(sqlite_url) as here:
        run_id, lost = scene(here)
        doubtful.was_sent(here.connection, list(lost.values()), who="ada", now=NOW)
        record(here, lost["anna"], evidence=Evidence.SIGNED)
        assert here.states(run_id) == {"anna": "bounced", "bert": "accepted"}


def test_an_expired_run_sends_nothing_again(sqlite_url: str) -> None:
    with world(sqlite_url) as here:
        _, lost = scene(here, at=NOW - 5 * DAY)
        with pytest.raises(InputError, match=r"expired at 2026-11-23 12:00 UTC; plan another"):
            doubtful.send_again(here.connection, list(lost.values()), now=NOW)


def test_two_runs_of_an_activity_never_send_at_once(sqlite_url: str) -> None:
    with world(sqlite_url) as here:
        _, lost = scene(here)
        activity = activities.find(here.connection, "spring")
        later = here.sending(activity, at=NOW + DAY)
        with pytest.raises(InputError, match=rf"run {later} of spring is sending; wait for its end"):
            doubtful.send_again(here.connection, list(lost.values()), now=NOW)


def test_a_cancelled_run_sends_nothing_again(sqlite_url: str) -> None:
    with world(sqlite_url) as here:
        here.person("anna")
        run_id = here.sending(here.activity(in_doubt="hold"))
        lost = lose(here, run_id)
        runs.move(here.connection, run_id, RunEvent.CANCEL, now=NOW)
        with pytest.raises(InputError, match="is cancelled, and sends no more"):
            doubtful.send_again(here.connection, list(lost.values()), now=NOW)


# --- the command -------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """Return a configuration with two deliveries in doubt."""
    with Box(tmp_path) as made:
        schema.upgrade(made.database)
        with made.database.begin() as connection:
            token_keys.signing(connection, now=NOW)
            scene(World(connection), at=datetime.now(UTC))
        yield made.folder / "config.toml"


def test_deliveries_in_doubt_are_listed_and_settled(config: Path) -> None:
    lines = command.run("activity", "in-doubt", config=config).out.splitlines()
    assert lines[0].split() == ["delivery", "activity", "address", "since", "why"]
    assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
    assert "spring, run 1  anna@example.org" in lines[1]
    assert lines[1].endswith(LOST)
    said = command.run("activity", "settle", "spring", "2", "--sent", config=config).out
    assert said == "1 delivery of spring counted as sent\n"
    said = command.run("activity", "settle", "spring", "--resend", config=config).out
    assert said == "1 delivery of spring to be sent again\n"
    assert command.run("activity", "in-doubt", "spring", config=config).out == "nothing is in doubt\n"
    assert (
        command.refused("activity", "settle", "spring", "--sent", config=config)
        == "nothing of it is in doubt"
    )


def test_what_is_unclear_is_refused(config: Path) -> None:
    for words in ([], ["--sent", "--resend"]):
        assert (
            command.refused("activity", "settle", "spring", *words, config=config) == "say --sent or --resend"
        )
    said = command.refused("activity", "settle", "spring", "7", "--sent", config=config)
    assert said.startswith("delivery 7 is not in doubt")
    assert command.refused("activity", "in-doubt", "nix", config=config).startswith("there is no activity")


def test_machines_the_doctor_and_the_report_tell_of_them(config: Path) -> None:
    rows = command.run("activity", "in-doubt", "--json", config=config).json
    assert [(row["id"], row["external_id"], row["reply"]) for row in rows] == [
        (1, "anna", LOST),
        (2, "bert", LOST),
    ]
    assert re.fullmatch(r"<[a-z2-7]{40}@sender\.test>", rows[0]["message_id"])
    assert rows[0]["message_id"] != rows[1]["message_id"]
    found = command.run("doctor", "--json", config=config).json
    assert {"about": "activity spring", "state": "warning"}.items() <= next(
        each for each in found if "in doubt" in each["text"]
    ).items()
    out = command.run("report", "activity", "spring", config=config).out
    assert "`mailbound activity in-doubt spring` lists what is unknown." in out
