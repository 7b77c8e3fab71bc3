"""An inbound account was dead for days: its reports come late, all at once, and count for what they speak of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import sqlalchemy as sa

import dying
import inbox
from mailbound import tokens
from mailbound.address import normalise
from mailbound.database import deliveries, imports, inbound_mail, recovery, tables, token_keys
from mailbound.database.deliveries import Settlement
from mailbound.database.engine import Database
from mailbound.database.inbound_mail import Arrival
from mailbound.lifecycle import DeliveryEvent
from mailbound.tokens import Purpose
from test_bounces import move, statuses, wishes
from world import DAY, NODE, NOW, World, mark

LATER = NOW + 6 * DAY

REPORT = """\
Delivered-To: bounces+{token}@example.com
From: MAILER-DAEMON@mx.example.net
Subject: Undelivered Mail Returned to Sender
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net

Final-Recipient: rfc822; {name}@example.org
Action: failed
Status: {status}
Diagnostic-Code: smtp; {words}

--b--
"""
DEAD = "5.1.1", "550 5.1.1 User unknown"
FULL = "5.2.2", "552 5.2.2 Mailbox full"


class Story:
    """Who was sent what, and what the reports say when they come at last."""

    def __init__(self, database: Database) -> None:
        self.database = database
        with database.begin() as connection:
            self.key = token_keys.signing(connection, now=NOW)

    def send(self, name: str, *, days_ago: int = 6) -> int:
        """Send to somebody new, so long before the reports come; return the delivery."""
        at = LATER - days_ago * DAY
        with self.database.begin() as connection:
            here = World(connection)
            here.person(name)
            run_id = here.sending(here.activity(name, starts_at=at), at=at)
            return next(each.id for each in self._mark(here, run_id, at) if each.external_id == name)

    def _mark(self, here: World, run_id: int, at: Any) -> list[Any]:
        claimed = here.claim(run_id, at=at)
        mark(here.connection, [each.id for each in claimed], node_id=NODE, now=at)
        accepted = [Settlement(each.id, DeliveryEvent.ACCEPT, reply="250 2.0.0 Ok") for each in claimed]
        deliveries.settle(here.connection, accepted, node_id=NODE, now=at)
        return claimed

    def report(self, name: str, delivery_id: int, said: tuple[str, str] = DEAD, **minted: int) -> None:
        """Let a report come late, with the token that it was sent with, and read it."""
        known = {"attempt": 1, "day": tokens.day_number(NOW), **minted}
        token = tokens.for_delivery(self.key, Purpose.RETURN_PATH, delivery_id, **known)
        status, words = said
        text = REPORT.format(token=token, name=name, status=status, words=words)
        content = text.replace("\n", "\r\n").encode()
        with self.database.begin() as connection:
            arrival = Arrival(token, content, len(content), truncated=False)
            inbound_mail.keep(connection, 1, [arrival], now=LATER)

        asyncio.run(inbox.record_all(dying.recorder_of(self.database, dying.Here()), self.database))

    def outcome(self, delivery_id: int) -> tuple[str, int, str, str]:
        """Return the state of a delivery, and of its bounce the attempt, the disposition and the reason."""
        with self.database.look() as connection:
            state = sa.select(tables.delivery.c.state).where(tables.delivery.c.id == delivery_id)
            (bounce,) = connection.execute(sa.select(tables.bounce)).all()
            return connection.execute(state).scalar_one(), bounce.attempt, bounce.disposition, bounce.why

    def known(self) -> tuple[Mapping[str, str], Mapping[Any, str]]:
        """Return the statuses of addresses and the wishes of people."""
        with self.database.begin() as connection:
            here = World(connection)
            return statuses(here), wishes(here)


@pytest.fixture
def story(sqlite_url: str) -> Iterator[Story]:
    with inbox.database_at(sqlite_url) as database:
        yield Story(database)


def test_a_late_report_has_its_effects(story: Story) -> None:
    sent = story.send("anna")
    story.report("anna", sent)
    assert story.outcome(sent) == ("bounced", 1, "applied", "no-such-user: the address is dead")
    assert story.known() == (
        {"anna@example.org": "undeliverable"},
        {("anna", "main"): "out hard_bounce"},
    )


def test_it_speaks_of_its_own_attempt(story: Story) -> None:
    """The first attempt was in doubt and sent again; of the second nothing was heard."""
    with story.database.begin() as connection:
        here = World(connection)
        here.person("anna")
        run_id = here.sending()
        (first,) = here.claim(run_id)
        mark(connection, [first.id], node_id=NODE, now=NOW)
        lost = Settlement(first.id, DeliveryEvent.LOSE, attempt=1)
        deliveries.settle(connection, [lost], node_id=NODE, now=NOW)
        recovery.resend(connection, first.id, now=NOW)
        here.send(run_id)
    story.report("anna", first.id, FULL)
    state, attempt, disposition, _ = story.outcome(first.id)
    assert (state, attempt, disposition) == ("accepted", 1, "noted")


def test_it_changes_nobody_who_has_opted_in_anew_meanwhile(story: Story) -> None:
    sent = story.send("anna")
    with story.database.begin() as connection:
        at = NOW + 3 * DAY
        people = [imports.Person("anna", normalise("anna@example.org"), receive=True, consent_at=at)]
        imports.Import(store_id=1, who="test", now=at).apply(connection, people)
    story.report("anna", sent)
    state, _, disposition, why = story.outcome(sent)
    assert (state, disposition) == ("bounced", "noted")
    assert why == "it was sent before the recipient opted in anew"
    assert story.known() == ({}, {("anna", "main"): "in user"})


def test_it_is_about_the_address_that_was_mailed_then(story: Story) -> None:
    sent = story.send("anna")
    with story.database.begin() as connection:
        move(World(connection), "anna", "anna@example.net", now=NOW + 3 * DAY)
    story.report("anna", sent)
    assert story.known() == ({"anna@example.org": "undeliverable"}, {("anna", "main"): "in import"})


def test_one_that_comes_too_late_for_its_token_is_left_to_a_person(story: Story) -> None:
    sent = story.send("anna", days_ago=31)
    story.report("anna", sent, day=tokens.day_number(LATER) - 31)
    state, _, disposition, why = story.outcome(sent)
    assert (state, disposition) == ("accepted", "quarantined")
    assert why.endswith("the delivery was sent more than 30 days before")
    assert story.known() == ({}, {("anna", "main"): "in import"})
