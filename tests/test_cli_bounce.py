"""`mailbound bounce`: what came back, in lists, one by one, and explained."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

import command
from box import Box
from mailbound import packing
from mailbound.cli import bounce_views
from mailbound.database import inbound_mail, schema
from mailbound.database.inbound_mail import Arrival
from mailbound.lifecycle import DeliveryState
from rows import NOW, World

DSN = b"""\
From: MAILER-DAEMON@mx.example.com
To: bounces@sender.test
Subject: Undeliverable
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b

Your message could not be delivered.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.com

Final-Recipient: rfc822; joe@example.com
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 <joe@example.com>: User unknown

--b--
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a configuration with a bounce by mail, a refusal by our relay, a complaint, and a kept mail."""
    with Box(tmp_path_factory.mktemp("bounce")) as made:
        (made.folder / "joe.eml").write_bytes(DSN)
        schema.upgrade(made.database)
        with made.database.begin() as connection:
            _fill(World(connection))
        yield made.folder / "config.toml"


def _fill(world: World) -> None:
    run_id = world.run(world.activity("spring"))
    dead = world.deliver(run_id, DeliveryState.BOUNCED)
    why = {"why": "it is dead", "diagnostic": "550 no \x1b[2J such user", "rule": "user-unknown"}
    world.say(dead, address="dead@example.com", status="5.1.1", **why)
    full = world.deliver(run_id, DeliveryState.REFUSED)
    world.say(full, by_mail=False, address="full@example.com", status="5.2.2", category="mailbox-full")
    tired = world.deliver(run_id, DeliveryState.ACCEPTED)
    world.say(tired, "complaint", action="complained", category="unclear", disposition="quarantined")
    inbound_mail.keep(world.connection, 1, [Arrival("kept", DSN, len(DSN), truncated=False)], now=NOW)


def kept(config: Path) -> str:
    """Return the number of the mail that is kept whole."""
    mails = command.run("bounce", "list", "--mail", "--json", config=config).json
    return next(str(each["id"]) for each in mails if each["state"] == "new")


# --- lists -------------------------------------------------------------------------------------------------


def test_the_list_says_who_what_and_what_became_of_it(config):
    lines = command.run("bounce", "list", config=config).out.splitlines()
    assert lines[0].split() == ["id", "at", "address", "says", "became"]
    assert [line.split()[3:] for line in lines[1:]] == [
        ["someone@example.com", "complained", "quarantined"],
        ["full@example.com", "5.2.2", "mailbox-full", "applied"],
        ["dead@example.com", "5.1.1", "no-such-user", "applied"],
    ]


def test_machines_get_every_field(config):
    first = command.run("bounce", "list", "--json", "--limit", "1", config=config).json[0]
    assert first["evidence"] == "signed"
    assert first["disposition"] == "quarantined"
    assert "why" in first


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ([], 3),
        (["--limit", "2"], 2),
        (["--quarantined"], 1),
        (["--activity", "spring"], 3),
        (["--mail"], 1),
        (["--kind", "disposition"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_list_has_what_was_asked_for(config, options, count):
    assert len(command.run("bounce", "list", *options, "--json", config=config).json) == count


def test_a_mail_that_was_not_read_yet_is_listed_as_new(config):
    lines = command.run("bounce", "list", "--mail", config=config).out.splitlines()
    assert lines[1].split()[0::4] == [kept(config), "new"]


@pytest.mark.parametrize(
    ("head", "sender"),
    [
        ("From: MAILER-DAEMON@mx.example.com", "mailer-daemon@mx.example.com"),
        ("Return-Path: <bounce@x.test>\nFrom: Jo =?utf-8?q?=C3=84?= <jo@people.test>", "jo@people.test"),
        ("Return-Path: <>\nSubject: nobody", "<>"),
        ("Return-Path: <bounce@x.test>\nFrom: nobody", "<bounce@x.test>"),
        ("Received: by mx\n" * 400 + "From: <far@down.test>", "far@down.test"),
        ("Subject: nothing", ""),
        ("From: \x1b[2J<a@b.test>", "a@b.test"),
    ],
    ids=["From", "name and path", "null path", "path", "far down", "none", "control"],
)
def test_a_list_of_mails_says_whom_each_is_from(tmp_path, database_url, head, sender):
    content = head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + random.Random(1).randbytes(100_000)
    with Box(tmp_path, url=database_url) as made:
        schema.upgrade(made.database)
        with made.database.begin() as connection:
            World(connection)
            inbound_mail.keep(connection, 1, [Arrival("1", content, len(content), truncated=False)], now=NOW)
        config = tmp_path / "config.toml"
        assert command.run("bounce", "list", "--mail", "--json", config=config).json[0]["sender"] == sender
        assert sender in command.run("bounce", "list", "--mail", config=config).out


@pytest.mark.parametrize(("width", "left"), [(100, {"fetched", "store"}), (80, {"store"}), (60, set())])
def test_a_narrow_list_of_mails_keeps_whom_they_are_from_and_what_about(capsys, width, left):
    packed = packing.alone(b"From: <" + b"w" * 40 + b"@mailer.example.com>\n\n")
    row = SimpleNamespace(
        id=47,
        store="main",
        fetched_at=NOW,
        kind="unrecognised",
        state="read",
        subject="q" * 50,
        **packed._asdict(),
    )
    size = {"COLUMNS": str(width)}
    with mock.patch.dict("os.environ", size), mock.patch("sys.stdout.isatty", return_value=True):
        bounce_views.mails([row])
    said = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert max(map(len, said.splitlines())) <= width
    assert said.count("w") == 40
    assert said.count("q") == 50
    assert "unrecognised" in said
    assert {"fetched", "store"} & set(said.split()) == left


def test_an_empty_list_says_so(config):
    assert command.run("bounce", "list", "--kind", "delay", config=config).out == "there is no such mail\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--activity", "nix"], "there is no activity 'nix'"),
        (["--mail", "--quarantined"], "--mail and --kind are about mails, the other options about bounces"),
        (["--kind", "bounce", "--activity", "spring"], "--mail and --kind are about mails"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_list_that_cannot_be_is_refused(config, options, said):
    assert command.refused("bounce", "list", *options, config=config).startswith(said)


# --- one bounce --------------------------------------------------------------------------------------------


def test_a_bounce_is_shown_with_its_meaning_and_without_its_control_characters(config):
    said = command.run("bounce", "show", "1", config=config).out
    facts = {line[:11].strip(): line[13:] for line in said.splitlines()}
    assert facts["says"] == "failed 5.1.1"
    assert facts["diagnostic"] == "550 no \\x1b[2J such user"
    assert facts["means"] == "no-such-user, permanent (rule user-unknown)"
    assert facts["delivery"] == "1, attempt 1, run 1 of spring"
    assert facts["disposition"] == "applied: it is dead"


def test_a_refusal_by_our_relay_has_no_mail(config):
    assert "none: it was a reply of our relay" in command.run("bounce", "show", "2", config=config).out
    said = command.refused("bounce", "show", "2", "--raw", config=config)
    assert said == "bounce 2 was an SMTP reply; there is no mail"


def test_a_bounce_is_shown_to_machines(config):
    shown = command.run("bounce", "show", "1", "--json", config=config).json
    assert shown["bounce"]["category"] == "no-such-user"
    assert shown["effects"] == []


@pytest.mark.parametrize("words", [["show", "99"], ["undo", "99"]], ids=" ".join)
def test_a_number_that_does_not_exist_is_named(config, words):
    said = command.refused("bounce", *words, config=config)
    assert said == "there is no bounce 99; `mailbound bounce list` shows those there are"


# --- read --------------------------------------------------------------------------------------------------


def test_files_are_read_without_a_configuration_and_a_bad_path_stops_none(config):
    mail = str(config.parent / "joe.eml")
    done = command.run("bounce", "read", stdin=f"nowhere.eml\n\n{mail}\n".encode(), config=Path("/nowhere"))
    missing, joe = map(json.loads, done.out.splitlines())
    assert missing == {"path": "nowhere.eml", "error": "nowhere.eml: No such file or directory"}
    assert (joe["path"], joe["kind"]) == (mail, "bounce")
    assert joe["recipients"][0]["address"] == "joe@example.com"
    assert joe["recipients"][0]["hard"] is True
    assert (done.status, done.err) == (2, "mailbound: 1 file could not be read\n")
