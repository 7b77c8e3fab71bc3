"""A thousand reports that somebody made up, through all of the inbound path: not one of them changes anything."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa

import inbox
from mailbound import reading, tokens
from mailbound.database import inbound_mail, tables, token_keys
from mailbound.database.engine import Database
from mailbound.database.inbound_mail import Arrival
from mailbound.tokens import Key, Purpose
from world import DAY, NODE, NOW, World, mark

MANY = 1000
TODAY = tokens.day_number(NOW)
EFFECTS = (tables.opt_in, tables.recipient_status, tables.change, tables.suppression, tables.delivery)

REPORT = """\
Return-Path: <>
Delivered-To: {delivered_to}
From: Mail Delivery System <MAILER-DAEMON@mx.example.net>
To: {delivered_to}
Subject: Undelivered Mail Returned to Sender
Message-ID: <{number}@mx.example.net>
Content-Type: multipart/report; report-type={type}; boundary="outer"

--outer
Content-Type: text/plain

Your message could not be delivered.

--outer
Content-Type: message/{type}

{fields}
--outer
Content-Type: text/rfc822-headers

From: News <bounces@example.com>
To: {victim}
Message-ID: <{message_id}@example.com>

--outer--
"""
DSN = """\
Reporting-MTA: dns; mx.example.net
{envid}
Final-Recipient: rfc822; {victim}
Action: {action}
Status: {status}
Diagnostic-Code: smtp; {status} {words}
"""
COMPLAINT = """\
Feedback-Type: abuse
User-Agent: SomeProvider/1.0
Version: 1
Original-Rcpt-To: {victim}
"""
SIGNS = [
    ("failed", "5.1.1", "User unknown"),
    ("failed", "5.1.1", "User unknown"),
    ("failed", "5.2.2", "Mailbox full"),
    ("failed", "5.0.0", "No"),
    ("delayed", "4.4.1", "Connection timed out"),
    ("delivered", "2.0.0", "Ok"),
]


@dataclass(frozen=True)
class Forgery:
    """Tokens as they would stand in the three places that we look at, and why none is believed."""

    return_path: str = ""
    envid: str = ""
    message_id: str = ""
    why: str = "it carries no token of ours"

    def write(self, dice: Random, number: int, victim: str) -> bytes:
        """Return the mail. What it claims is drawn by lot."""
        envid = f"Original-Envelope-Id: {self.envid}\n" if self.envid else ""
        action, status, words = dice.choice(SIGNS)
        known = {"victim": victim, "action": action, "status": status, "words": words, "envid": envid}
        complaint = not envid and dice.random() < 0.2
        plus = f"+{self.return_path}" if self.return_path else ""
        text = REPORT.format(
            number=number,
            type="feedback-report" if complaint else "delivery-status",
            fields=(COMPLAINT if complaint else DSN).format(**known),
            delivered_to=f"bounces{plus}@example.com",
            victim=victim,
            message_id=self.message_id or f"{number}.news",
        )
        return text.replace("\n", "\r\n").encode()


class Scene:
    """Ten people who were sent something by a store, one who was not yet, and one whose mail is of another store."""

    def __init__(self, database: Database) -> None:
        self.database = database
        with database.begin() as connection:
            here = World(connection)
            self.key = token_keys.signing(connection, now=NOW)
            for number in range(10):
                here.person(f"person{number}")
            self.sent = here.send(here.sending())
            self.old = here.send(here.sending(here.activity("old"), at=NOW - 31 * DAY), at=NOW - 31 * DAY)
            stranger = here.person("stranger", opted_in=None)
            here.wish(stranger, store="other", receive=True)
            other = here.sending(here.activity("other", store="other"))
            (claimed,) = here.claim(other)
            mark(connection, [claimed.id], node_id=NODE, now=NOW)
            self.others = claimed.id
            here.person("late")
            run_id = here.sending(here.activity("late"))
            self.unsent = [each.id for each in here.claim(run_id)]

    def mint(self, purpose: Purpose, delivery_id: int, *, day: int = TODAY, key: Key | None = None) -> str:
        return tokens.for_delivery(key or self.key, purpose, delivery_id, attempt=1, day=day)

    def everywhere(self, delivery_id: int, why: str, **token: Any) -> list[Forgery]:
        """Return a forgery for each place where a token of that delivery can stand."""
        return [
            Forgery(return_path=self.mint(Purpose.RETURN_PATH, delivery_id, **token), why=why),
            Forgery(envid=self.mint(Purpose.ENVID, delivery_id, **token), why=why),
            Forgery(message_id=self.mint(Purpose.MESSAGE_ID, delivery_id, **token), why=why),
        ]

    def forgeries(self, delivery_id: int) -> dict[str, list[Forgery]]:
        """Return what can be tried against the recipient of a delivery, by its name."""
        return_path, envid, message_id = (
            self.mint(purpose, delivery_id)
            for purpose in (Purpose.RETURN_PATH, Purpose.ENVID, Purpose.MESSAGE_ID)
        )
        wish = tokens.for_unsubscribe(self.key, 1, store=1)
        unknown = "our key did not sign it: it is damaged, forged, or of another installation"
        return {
            "no token": [Forgery()],
            "tampered": [
                Forgery(return_path=_tampered(return_path), why=unknown),
                Forgery(envid=_tampered(envid), why=unknown),
                Forgery(message_id=_tampered(message_id), why=unknown),
            ],
            "signed by a stranger": self.everywhere(delivery_id, unknown, key=Key(self.key.id, b"x" * 32)),
            "of a key that we have not": self.everywhere(
                delivery_id, "we have no key 7", key=Key(7, b"x" * 32)
            ),
            "for another purpose": [
                Forgery(return_path=envid, why="we signed it to be carried by the envid"),
                Forgery(return_path=message_id, why="we signed it to be carried by the message-id"),
                Forgery(envid=return_path, why="we signed it to be carried by the return-path"),
                Forgery(message_id=envid, why="we signed it to be carried by the envid"),
                Forgery(envid=wish, why="we signed it to be carried by the unsubscribe"),
                Forgery(message_id=wish, why="we signed it to be carried by the unsubscribe"),
                Forgery(return_path=wish, why="its token is for something else"),
            ],
            "expired": self.everywhere(delivery_id, "which is too far away", day=TODAY - 61),
            "of tomorrow": self.everywhere(delivery_id, "which is too far away", day=TODAY + 1),
            "of a restored database": self.everywhere(delivery_id, "before a restore", day=TODAY - 3),
        }

    def others_forgeries(self) -> dict[str, list[Forgery]]:
        """Return what can be tried with tokens of other deliveries, each genuine in its own time and place."""
        other = "the delivery is of another store than the mailbox"
        late = "the delivery was sent more than 30 days before"
        return {
            "of another store": self.everywhere(self.others, other),
            "sent long ago": self.everywhere(next(iter(self.old.values())), late, day=TODAY - 31),
            "never sent": self.everywhere(self.unsent[0], "the delivery was never sent"),
            "of no delivery": self.everywhere(4711, "there is no such delivery any more"),
        }

    def arrive(self, mails: list[bytes]) -> None:
        with self.database.begin() as connection:
            arrivals = [
                Arrival(f"{id(mails)}-{n}", mail, len(mail), truncated=False) for n, mail in enumerate(mails)
            ]
            inbound_mail.keep(connection, 1, arrivals, now=NOW)

    def read(self) -> None:
        async def main() -> None:
            async with inbox.recording(self.database) as (one, _):
                await inbox.record_all(one, self.database)

        asyncio.run(main())

    def everything(self) -> dict[str, list[Any]]:
        """Return all that a report could change."""
        with self.database.look() as connection:
            return {
                table.name: list(connection.execute(sa.select(table).order_by(*table.primary_key)))
                for table in EFFECTS
            }

    def bounces(self) -> list[Any]:
        with self.database.look() as connection:
            return list(connection.execute(sa.select(tables.bounce).order_by(tables.bounce.c.id)))


def _tampered(token: str) -> str:
    """Return a token with another delivery's number in it."""
    return token[:8] + ("b" if token[8] == "a" else "a") + token[9:]


@pytest.fixture
def scene(sqlite_url: str) -> Iterator[Scene]:
    with inbox.database_at(sqlite_url) as database:
        yield Scene(database)


def test_a_thousand_forged_reports_change_nothing_and_each_is_quarantined_with_its_reason(
    scene: Scene,
) -> None:
    dice = Random(20261124)
    before = scene.everything()
    mails, reasons = [], []
    for number in range(MANY):
        victim, delivery_id = dice.choice(list(scene.sent.items()))
        kinds = scene.forgeries(delivery_id) | scene.others_forgeries()
        forgery = dice.choice(dice.choice(list(kinds.values())))
        mails.append(forgery.write(dice, number, f"{victim}@example.org"))
        reasons.append(forgery.why)
    scene.arrive(mails)
    scene.read()
    assert scene.everything() == before
    bounces = scene.bounces()
    assert len(bounces) == MANY
    assert {row.disposition for row in bounces} == {"quarantined"}
    wrong = [(row.why, why) for row, why in zip(bounces, reasons, strict=True) if not row.why.endswith(why)]
    assert Counter(wrong) == Counter()
    assert {row.evidence for row in bounces} == {"unsigned"}


def test_who_has_a_token_harms_nobody_else_with_it(scene: Scene) -> None:
    """Somebody got a mail of ours, and so a token. Again and again they say that others are dead."""
    before = scene.everything()
    token = scene.mint(Purpose.RETURN_PATH, scene.sent["person0"])
    dice = Random(1)
    scene.arrive(
        [
            Forgery(return_path=token).write(dice, number, f"person{1 + number % 9}@example.org")
            for number in range(50)
        ]
    )
    scene.read()
    after = scene.everything()
    complaints = [row for row in after["change"] if row.kind == "opt_in" and row not in before["change"]]
    assert [row.after for row in complaints] == ["out (complaint)"], "in their own name they may complain"
    own = {row.id for row in before["delivery"] if row.id == scene.sent["person0"]}
    untouched = [
        [row for row in rows if row.id not in own] for rows in (before["delivery"], after["delivery"])
    ]
    assert untouched[0] == untouched[1]
    assert after["recipient_status"] == []
    assert {row.recipient_id for row in scene.bounces()} == {complaints[0].recipient_id}
    others = [
        [row for row in rows["opt_in"] if row.recipient_id != complaints[0].recipient_id]
        for rows in (before, after)
    ]
    assert others[0] == others[1]


def test_a_genuine_report_that_is_sent_again_and_again_counts_once(scene: Scene) -> None:
    dice = Random(2)
    genuine = Forgery(return_path=scene.mint(Purpose.RETURN_PATH, scene.sent["person0"]))
    mail = genuine.write(Random(5), 0, "person0@example.org")
    assert reading.read(mail).recipients, "this lot is a delivery report"
    scene.arrive([mail])
    scene.read()
    once, bounces = scene.everything(), scene.bounces()
    assert len(bounces) == 1
    scene.arrive([mail.replace(b"<0@mx", b"<%d@mx" % dice.randrange(10**6)) for _ in range(20)])
    scene.read()
    assert (scene.everything(), scene.bounces()) == (once, bounces)
