"""`mailbound activity`: plan, look, steer, and try a message; no daemon runs here."""

from __future__ import annotations

import email
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import policy
from pathlib import Path
from typing import Any

import pytest

import command
from box import Box
from mailbound.cli import previewing
from mailbound.database import activities, runs
from mailbound.lifecycle import RunEvent, RunState

CREATE = ("activity", "create")
SOFT = ("--resend-soft", "3", "--resend-every", "12h")
WHOM = ("--segment", "all", "--template", "spring")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Return a box with two people and a segment of both; nothing answers at its relay."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    folder = tmp_path_factory.mktemp("activity")
    with Box(folder, outbound=f'port = {port}\ntls = "insecure"') as made:
        made.populate({"ada": "ada@example.com", "ben": "ben@example.com"})
        lacking = folder / "templates" / "lacking"
        lacking.mkdir()
        (lacking / "subject.txt").write_text("Hello {{ nickname }}")
        (lacking / "text.txt").write_text("Hello")
        yield made


@pytest.fixture
def run(box: Box) -> Any:
    """Return what runs a command in the box."""
    return lambda *words: command.run(*words, config=config(box))


@pytest.fixture
def refused(box: Box) -> Any:
    """Return what runs a command that is refused in the box, and returns the line that it says."""
    return lambda *words: command.refused(*words, config=config(box))


def config(box: Box) -> Path:
    return box.folder / "config.toml"


# --- planning ----------------------------------------------------------------------------------------------


def test_an_activity_without_a_date_waits_to_be_started(run):
    assert run(*CREATE, "manual", *WHOM).out.endswith(" waits for `activity start`\n")


def test_a_date_means_the_zone_that_is_named(run):
    plan = ("--at", "2099-07-01 09:00", "--zone", "Europe/Berlin")
    assert run(*CREATE, "dated", *WHOM, *plan).out.endswith(" is due 2099-07-01 07:00:00Z\n")


def test_what_was_planned_is_shown_as_a_person_writes_it(run):
    plan = ("--cron", "0 9 * * mon", "--zone", "Europe/Berlin", "--window", "mon-wed,fri 09:00-17:00")
    run(*CREATE, "weekly", *WHOM, *plan, "--grace", "90m", "--in-doubt", "hold", *SOFT)
    facts = dict(line.split("  ", 1) for line in run("activity", "show", "weekly").out.splitlines())
    facts = {label.strip(): text.strip() for label, text in facts.items()}
    assert facts["due"] == "0 9 * * mon Europe/Berlin"
    assert facts["window"] == "mon-wed,fri 09:00-17:00 Europe/Berlin"
    assert facts["grace"].startswith("90m ")
    assert facts["expires after"].startswith("4d ")
    assert facts["in doubt"].startswith("hold ")
    assert facts["soft bounces"] == "are sent again after 12h, 3 times at most"


def test_machines_get_durations_in_seconds(run):
    run(*CREATE, "plain", *WHOM, "--grace", "2h")
    shown = run("activity", "show", "plain", "--json").json
    assert shown["activity"]["grace_seconds"] == 7200
    assert shown["activity"]["expires_after_seconds"] == 4 * 86_400
    assert shown["runs"] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--segment", "nix"], "there is no segment 'nix'"),
        (["--template", "nix"], "template nix: there is no folder"),
        (["--store", "nix"], "--store: choose one of main"),
        (["--at", "yesterday"], "'yesterday' is no time"),
        (["--at", "2026-13-01 09:00"], "2026-13-01 09:00 UTC does not exist"),
        (["--at", "2020-01-01 09:00"], "--at: 2020-01-01 09:00:00Z is over"),
        (["--at", "now", "--zone", "Mars/Olympus"], "Mars/Olympus is no time zone"),
        (["--cron", "99 * * * *"], "cron expression '99 * * * *': bad minute"),
        (["--cron", ""], "cron expression '' does not have five fields"),
        (["--window", "mon-fry 9-17"], "window 'mon-fry 9-17'"),
        (["--grace", "soon"], '--grace: "soon" is not a duration'),
        (["--expires-after", "0s"], '--expires-after: "0s" is no time at all'),
        (["--resend-every", "often"], '--resend-every: "often" is not a duration'),
        (["--in-doubt", "maybe"], "--in-doubt: maybe is neither resend nor hold"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_plan_is_refused_and_kept_nowhere(run, refused, options, said):
    assert refused(*CREATE, "bad", *WHOM, *options).startswith(said)
    assert "bad" not in {each["name"] for each in run("activity", "list", "--json").json}


@pytest.mark.parametrize("name", ["", "12", "x" * 65, "a\x1bb"])
def test_a_name_can_be_told_from_a_number_and_shown(refused, name):
    assert "is no good name" in refused(*CREATE, name, *WHOM)


def test_a_name_is_taken_once(run, refused):
    run(*CREATE, "twice", *WHOM)
    assert refused(*CREATE, "twice", *WHOM) == "there is an activity 'twice' already; choose another name"


@pytest.mark.parametrize("verb", ["show", "start", "pause", "resume", "cancel", "preview"])
def test_an_unknown_activity_is_named(refused, verb):
    assert refused("activity", verb, "nix").startswith(
        "there is no activity 'nix'; `mailbound activity list`"
    )


def test_an_empty_list_says_what_to_do(tmp_path):
    with Box(tmp_path):
        said = command.run("activity", "list", config=tmp_path / "config.toml")
        as_json = command.run("activity", "list", "--json", config=tmp_path / "config.toml")
    assert "`mailbound activity create`" in said.out
    assert as_json.json == []


# --- steering ----------------------------------------------------------------------------------------------


def test_a_run_is_started_paused_resumed_and_cancelled(run, refused):
    run(*CREATE, "steered", *WHOM)
    assert "it has no run yet" in refused("activity", "pause", "steered")
    assert run("activity", "start", "steered").out.endswith(" of steered has started\n")
    assert "under way already" in refused("activity", "start", "steered")
    assert run("activity", "pause", "steered").out.endswith(" is paused\n")
    assert "is paused, so there is nothing to do" in refused("activity", "pause", "steered")
    assert run("activity", "resume", "steered").out.endswith(" sends again\n")
    assert run("activity", "cancel", "steered").out == "steered is cancelled, and 1 run of it ended\n"
    assert "was cancelled for good" in refused("activity", "start", "steered")


def test_one_run_can_be_cancelled_alone(run, refused):
    run(*CREATE, "again", *WHOM, "--cron", "0 9 * * mon")
    assert "again has no open run" in refused("activity", "cancel", "again", "--this-run")
    run("activity", "start", "again")
    assert run("activity", "cancel", "again", "--this-run").out.endswith(" of again is cancelled\n")
    assert run("activity", "show", "again", "--json").json["activity"]["ended_at"] is None


def test_a_pause_stops_what_is_sent_again_as_well(box, run):
    run(*CREATE, "twice", *WHOM)
    run("activity", "start", "twice")
    with box.database.begin() as connection:
        (first,) = runs.of_activity(connection, activities.find(connection, "twice").id)
        for event in (RunEvent.FINISH, RunEvent.REOPEN):
            runs.move(connection, first.id, event, now=datetime.now(UTC))
    run("activity", "start", "twice")
    for verb, said in (("pause", "is paused"), ("resume", "sends again")):
        lines = run("activity", verb, "twice").out.splitlines()
        assert [line.partition(" of ")[2] for line in lines] == [f"twice {said}"] * 2


def test_a_halted_run_is_told_before_one_to_come(box, run):
    run(*CREATE, "mixed", *WHOM, "--cron", "0 9 * * mon")
    run("activity", "start", "mixed")
    next_week = datetime.now(UTC) + timedelta(days=7)
    with box.database.begin() as connection:
        mixed = "(SELECT id FROM activity WHERE name = 'mixed')"
        connection.exec_driver_sql(f"UPDATE run SET state = '{RunState.HALTED}' WHERE activity_id = {mixed}")
        runs.schedule(connection, activities.find(connection, "mixed").id, next_week)
    states = {each["name"]: each["state"] for each in run("activity", "list", "--json").json}
    assert states["mixed"] == "halted"


# --- one message -------------------------------------------------------------------------------------------


def test_a_preview_is_the_message_that_a_recipient_would_get(run, tmp_path):
    run(*CREATE, "shown", *WHOM)
    done = run("activity", "preview", "shown", "--recipient", "ben", "--folder", f"{tmp_path}/new/folder")
    file = tmp_path / "new" / "folder" / "shown-ben.eml"
    assert done.out.splitlines()[0] == f"wrote {file}"
    message = email.message_from_bytes(file.read_bytes(), policy=policy.default)
    assert (message["To"].addresses[0].addr_spec, message["Subject"]) == ("ben@example.com", "Spring for Ben")


def test_without_a_browser_there_is_no_picture_and_it_is_said(run, tmp_path, monkeypatch):
    run(*CREATE, "unseen", *WHOM)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no picture" in run("activity", "preview", "unseen", "--folder", str(tmp_path)).out
    assert [file.suffix for file in tmp_path.iterdir()] == [".eml"]


@pytest.mark.skipif(not previewing.browser(), reason="there is no browser")
def test_a_picture_is_drawn_of_the_html(run, tmp_path):
    run("template", "create", "pretty")
    run(*CREATE, "drawn", "--segment", "all", "--template", "pretty")
    run("activity", "preview", "drawn", "--recipient", "ada", "--folder", str(tmp_path))
    assert (tmp_path / "drawn-ada.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["preview", "--recipient", "nix"], "there is no recipient 'nix'"),
        (["preview", "--folder", "/proc/nowhere"], "/proc/nowhere: No such file or directory"),
        (["test", "--to", "no address"], "'no address' is no address"),
        (["test", "--to", "me@example.com"], "localhost:"),
    ],
    ids=["recipient", "folder", "address", "relay"],
)
def test_a_message_that_cannot_be_tried_says_why(run, refused, words, said):
    run(*CREATE, "tried", *WHOM)
    assert refused("activity", words[0], "tried", *words[1:]).startswith(said)


def test_a_missing_value_is_named_with_its_template_and_recipient(run, refused):
    run(*CREATE, "lacking", "--segment", "all", "--template", "lacking")
    said = refused("activity", "preview", "lacking", "--recipient", "ada")
    assert said == "template lacking: 'nickname' is missing in subject.txt, line 1, for ada"


def test_an_empty_segment_has_nobody_to_show(run, refused):
    run("segment", "create", "nobody", "--where", "external_id = ''")
    run(*CREATE, "void", "--segment", "nobody", "--template", "spring")
    assert (
        refused("activity", "preview", "void")
        == "nobody is in segment nobody; name somebody with --recipient"
    )


def test_a_message_is_sent_to_an_address_of_ones_own(tmp_path):
    with command.simulator() as (relay, mailbox), Box(tmp_path, outbound=relay, inbound=mailbox) as made:
        made.populate({"ada": "ada@example.com"})
        made.schedule("spring")
        sent = command.run("activity", "test", "spring", "--to", "me@example.com", config=config(made))
        said = command.refused(
            "activity", "test", "spring", "--to", "refuse@example.com", config=config(made)
        )
    assert sent.out.startswith("me@example.com: 250 ")
    assert "550 5.1.1" in said
