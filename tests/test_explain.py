"""`mailbound bounce explain`: how a mail is understood, where that stands in it, and what it would do."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

import command
import reading_properties
from box import Box
from mailbound import tokens
from mailbound.cli import marked_mail
from mailbound.database import inbound_mail, schema, token_keys
from mailbound.database.inbound_mail import Arrival
from mailbound.database.tables import run
from mailbound.lifecycle import DeliveryState
from mailbound.reading import read
from mailbound.reading.marks import mark
from mailbound.tokens import Key, Purpose
from rows import World

NOW = datetime.now(UTC)
KEY = Key(3, b"k" * 32)
ELSEWHERE = Path("/nowhere/config.toml")
MAILS = reading_properties.FOLDER

DSN = """\
Return-Path: <>
From: MAILER-DAEMON@mx.example.com
To: {to}
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
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Return a box in which delivery 1 to joe was sent, 2 never was; bounce 1 came by a mail, bounce 2 by a reply."""
    with Box(tmp_path_factory.mktemp("explain")) as made:
        schema.upgrade(made.database)
        with made.database.begin() as connection:
            signing = token_keys.signing(connection, now=NOW)
            world = World(connection)
            run_id = world.run(world.activity("spring"))
            minted = {"key_id": signing.id, "day": tokens.day_number(NOW)}
            connection.execute(run.update().values(minted))
            joe = world.person(local="joe")
            world.deliver(run_id, DeliveryState.ACCEPTED, person=joe, marked_at=NOW, settled_at=NOW)
            world.deliver(run_id, DeliveryState.QUEUED)
            other = world.deliver(run_id, DeliveryState.BOUNCED, marked_at=NOW)
            bounce_id = world.say(other, address="joe@example.com", disposition="applied", why="it is dead")
            assert bounce_id == 1
            mail_id = connection.exec_driver_sql("SELECT mail_id FROM bounce WHERE id = 1").scalar_one()
            world.say(
                other, by_mail=False, address="full@example.com", status="5.2.2", category="mailbox-full"
            )
            dsn = DSN.format(to="bounces@sender.test").encode()
            inbound_mail.keep(connection, 1, [Arrival("kept", dsn, len(dsn), truncated=False)], now=NOW)
            connection.exec_driver_sql(f"UPDATE bounce SET mail_id = mail_id + 1 WHERE mail_id = {mail_id}")
        made.key = signing  # type: ignore[attr-defined]
        yield made


@pytest.fixture
def config(box: Box) -> Path:
    return box.folder / "config.toml"


def signed(box: Box, delivery: int = 1, *, age: int = 0, **more: Any) -> bytes:
    """Return a DSN that came to the return path of a delivery."""
    made = {"key": box.key, "purpose": Purpose.RETURN_PATH, **more}  # type: ignore[attr-defined]
    token = tokens.for_delivery(delivery_id=delivery, attempt=1, day=tokens.day_number(NOW) - age, **made)
    return DSN.format(to=f"bounces+{token}@sender.test").encode()


def explained(mail: bytes, config: Path = ELSEWHERE) -> dict[str, str]:
    """Return the facts that are shown about a mail, by their labels; the later ones stand."""
    out = command.run("bounce", "explain", "-", config=config, stdin=mail).out
    pairs = (
        line.split("  ", 1) for line in out.partition("\nThe mail\n")[0].splitlines() if "  " in line.strip()
    )
    return {label.strip(): text.strip() for label, text in pairs if label.strip()}


# --- what is said ------------------------------------------------------------------------------------------


def test_a_genuine_bounce_is_explained_with_what_it_would_do(box, config):
    facts = explained(signed(box), config)
    assert facts["kind"] == "bounce"
    assert facts["shown by"].startswith("line 6: Content-Type: multipart/report;")
    assert facts["read from"] == "the fields of its delivery status (RFC 3464)"
    assert facts["return-path"].endswith("genuine: delivery 1, attempt 1")
    assert facts["diagnostic"] == "550 5.1.1 <joe@example.com>: User unknown"
    assert facts["means"] == "no-such-user, permanent: the address is at fault"
    assert re.fullmatch(r"[\w-]+, for it says “.*user unknown”", facts["rule"])
    assert re.fullmatch(r"“.+” \(.+\)", facts["taught by"])
    assert facts["evidence"] == "signed: our token names delivery 1"
    assert facts["would be"] == "applied: no-such-user: the address is dead"
    assert "if genuine" not in facts


@pytest.mark.parametrize(
    ("token", "clue", "evidence"),
    [
        ({"key": KEY}, "we have no key 3", "we have no key 3"),
        ({"key": Key(0, b"x" * 32)}, "our key did not sign it", "our key did not sign it"),
        ({"age": 90}, "we signed it, but for", "we signed it, but for"),
        ({"purpose": Purpose.ENVID}, "we signed it to be carried by the envid", "we signed it to be carried"),
        ({"delivery": 2}, "genuine: delivery 2", "the delivery was never sent"),
        ({"delivery": 77}, "genuine: delivery 77", "there is no such delivery any more"),
        ({"age": 1}, "genuine: delivery 1", "the token is of another delivery that had the same number"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(*value),
)
def test_a_token_that_proves_nothing_is_told_why(box, config, token, clue, evidence):
    facts = explained(signed(box, **token), config)
    assert clue in facts["return-path"]
    assert facts["evidence"].startswith(f"unsigned: {evidence}")
    assert facts["would be"].startswith(f"quarantined: {evidence}")
    assert facts["if genuine"] == "applied: no-such-user: the address is dead"


def test_a_forged_bounce_names_what_it_lacks(config):
    facts = explained((MAILS / "forged.eml").read_bytes(), config)
    assert facts["would be"].startswith("quarantined")


def test_explaining_records_nothing(box, config):
    before = command.run("bounce", "list", "--json", config=config).out
    mail = command.run("bounce", "explain", "-", "--json", config=config, stdin=signed(box)).json
    assert mail["findings"][0]["would_be"] == "applied"
    assert command.run("bounce", "list", "--json", config=config).out == before


def test_a_mail_about_nobody_would_change_nothing(config):
    mail = b"From: ann@example.com\nSubject: Hello\n\nHow are you?\n"
    said = command.run("bounce", "explain", "-", config=config, stdin=mail).out
    assert "it would change nothing" in said
    assert "| How are you?" in said


def test_machines_get_the_same_with_lines_and_characters(config):
    dsn = DSN.format(to="bounces@sender.test").encode()
    known = command.run("bounce", "explain", "-", "--json", config=config, stdin=dsn).json
    lines = dsn.decode().splitlines()
    for each in known["marks"]:
        assert lines[each["line"] - 1][each["begin"] : each["end"]] == each["text"]
    assert {each["mark"] for each in known["marks"]} == {"kind", "recipient", "status", "diagnostic"}
    assert known["decided_by"][0]["line"] == 6
    assert known["findings"][0]["rule_source"]


# --- where it comes from -----------------------------------------------------------------------------------


def test_the_number_of_a_bounce_leads_to_its_mail_and_to_what_became_of_it(config):
    said = command.run("bounce", "explain", "1", config=config).out
    assert "bounce 1  applied: it is dead" in said
    assert "would be" not in said
    assert "15    | Final" not in said
    assert re.search(r"16 R +\| Final-Recipient: rfc822; joe@example.com", said)


def test_the_number_of_a_mail_does_as_well(config):
    mails = command.run("bounce", "list", "--mail", "--json", config=config).json
    number = next(str(each["id"]) for each in mails if each["state"] == "new")
    assert "Undeliverable" in command.run("bounce", "explain", number, "--mail", config=config).out


def test_a_file_needs_neither_configuration_nor_database(tmp_path):
    path = tmp_path / "joe.eml"
    path.write_bytes((MAILS / "postfix-user-unknown.eml").read_bytes())
    said = command.run("bounce", "explain", str(path), config=ELSEWHERE).out
    assert "Whether they are ours cannot be told here: /nowhere/config.toml: there is no such file" in said
    assert re.search(r"if genuine +applied: no-such-user: the address is dead", said)
    assert re.search(r"if not +quarantined", said)


def test_looking_at_a_file_makes_no_database(tmp_path):
    with Box(tmp_path) as fresh:
        said = command.run(
            "bounce", "explain", "-", config=tmp_path / "config.toml", stdin=signed_by(KEY)
        ).out
        assert "there is no database yet" in said
        assert not (fresh.folder / "mailbound.db").exists()


def signed_by(key: Key) -> bytes:
    token = tokens.for_delivery(key, Purpose.RETURN_PATH, 1, attempt=1, day=tokens.day_number(NOW))
    return DSN.format(to=f"bounces+{token}@sender.test").encode()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["99"], "there is no bounce 99; `mailbound bounce list` shows those there are"),
        (["99", "--mail"], "mail 99 is not kept; `mailbound bounce list --mail` shows what is"),
        (["2"], "bounce 2 was a reply of our relay, so there is no mail; `mailbound bounce show 2` says all"),
        (["-", "--mail"], "--mail goes with the number of a mail"),
        (["nowhere.eml"], "nowhere.eml: No such file or directory"),
        (["/"], "/: Is a directory"),
        (["/dev/null"], "/dev/null is no mail: it does not begin with a header"),
        ([__file__], f"{__file__} is no mail: it does not begin with a header"),
        (["-", "--store", "nix"], "--store: choose one of main"),
    ],
    ids=["bounce", "mail", "reply", "no number", "no file", "folder", "empty", "a program", "store"],
)
def test_what_is_no_mail_is_not_explained(config, words, said):
    dsn = DSN.format(to="bounces@sender.test").encode()
    assert command.refused("bounce", "explain", *words, config=config, stdin=dsn) == said


# --- how it looks ------------------------------------------------------------------------------------------


def test_quiet_stretches_are_folded_and_counted():
    returned = "\n--b\nContent-Type: message/rfc822\n\nSubject: x\n\n" + "Quiet\n" * 50 + "--b--"
    mail = DSN.format(to="b@sender.test").replace("\n--b--", returned)
    said = command.run("bounce", "explain", "-", config=ELSEWHERE, stdin=mail.encode()).out
    assert re.search(r"(?m)^ +… 5\d lines …$", said)
    assert "Quiet" not in said
    assert re.search(r"(?m)^17 S +\| Action: failed$", said)


def test_a_report_of_very_many_recipients_stays_readable():
    group = "Final-Recipient: rfc822; r{}@example.com\nAction: failed\nStatus: 5.1.1\n\n"
    groups = "".join(group.format(number) for number in range(900))
    mail = DSN.format(to="b@sender.test").partition("Final-")[0] + groups + "--b--\n"
    said = command.run("bounce", "explain", "-", config=ELSEWHERE, stdin=mail.encode()).out
    assert "… and 890 more recipients; --json has them all" in said
    assert said.count("\n") < 400
    assert re.search(r"… [\d,]+ lines, [\d,]+ marks …", said)


_ALLOWED = re.compile(r"\x1b\[[\d;]*m")  # what colours are made of


def drawn(mail: bytes, width: int, capsys: pytest.CaptureFixture[str]) -> str:
    """Return a marked mail as a terminal of that width is sent it."""
    terminal = {"COLUMNS": str(width), "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    with mock.patch.dict("os.environ", terminal), mock.patch("sys.stdout.isatty", return_value=True):
        marked_mail.show(mark(mail, read(mail)))
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [20, 60, 100, 200])
def test_no_line_is_wider_than_the_terminal(capsys, width):
    for name in ("exim-prose", "gmail-japanese", "ses-notification", "postfix-user-unknown"):
        said = _ALLOWED.sub("", drawn((MAILS / f"{name}.eml").read_bytes(), width, capsys))
        assert max(map(cell_len, said.splitlines())) <= max(width, 30)


def test_colours_show_what_was_used(capsys):
    said = drawn((MAILS / "qmail.eml").read_bytes(), 100, capsys)
    assert "\x1b[1;31m5.1.1\x1b[0m" in said
    assert "\x1b[35mnobody@remote.example\x1b[0m" in said


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_cannot_write_a_letter_is_shown_its_number(encoding):
    said = subprocess.run(
        [sys.executable, "-m", "mailbound.cli", "bounce", "explain", MAILS / "gmail-japanese.eml"],
        env={**os.environ, "PYTHONIOENCODING": encoding, "MAILBOUND_CONFIG": str(ELSEWHERE)},
        capture_output=True,
        check=True,
    )
    assert rb"| ** \u30a2" in said.stdout
    assert said.stderr == b""


_NASTY = "\x1b]0;owned\x07\x1b[2J\x9b31m\x00\u202e\r\x7f"


@pytest.mark.parametrize("place", ["subject", "diagnostic", "recipient", "returned", "encoded"])
def test_no_control_character_of_a_mail_reaches_the_terminal(capsys, place):
    mail = DSN.format(to="b@sender.test")
    mail = {
        "subject": mail.replace("Undeliverable", f"Undeliverable {_NASTY}x"),
        "diagnostic": mail.replace("User unknown", f"User {_NASTY}unknown"),
        "recipient": mail.replace("joe@example", f"joe{_NASTY}@example"),
        "returned": mail.replace("\n--b--", f"\n--b\nContent-Type: message/rfc822\n\nX: {_NASTY}\n--b--"),
        "encoded": mail.replace("Undeliverable", "=?utf-8?q?Undeliverable_=1B=5B2J=C2=9B?="),
    }[place]
    raw = mail.encode()
    piped = command.run("bounce", "explain", "-", config=ELSEWHERE, stdin=raw).out
    shown = _ALLOWED.sub("", drawn(raw, 80, capsys))
    for said in (piped, shown):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", said)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*DSN.encode().splitlines(True)]) | st.binary(max_size=30), max_size=40))
def test_whatever_a_mail_is_it_is_drawn_without_its_control_characters(pieces):
    mail = b"From: a@x.example\n" + b"".join(pieces)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        marked_mail.show(mark(mail, read(mail)))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", said.getvalue())
