"""A relay in all kinds of trouble, and the real daemon before it: nobody is blamed, no attempt counts that was none.

One daemon lives through all of it, with little patience. Each trouble strikes a run of its own.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import impatient
from box import Box
from hosts import hosts
from ledger_relay import Deed, LedgerRelay, Point
from mailbound.database import tables, tally

_CONNECTIONS = 3
_PEOPLE = {f"person-{number}": f"person-{number}@remote.test" for number in range(12)}
_RELAY = "127.0.0.3"

_GREETING = Point("server", "220 ")
_HELLO = Point("server", "250-PIPELINING")
_MAIL = Point("server", r"250 2\.1\.0 ", 4)
_RCPT = Point("server", r"250 2\.1\.5 ", 4)
_DATA = Point("server", "354 ", 4)
_BODY = Point("client", "Subject:", 4)
_DOT = Point("client", r"\.\r\n", 4)
_TAKEN = Point("server", r"250 2\.0\.0 Ok: queued", 4)
_RESET = Point("server", r"250 2\.0\.0 Ok\r\n")
_LOGIN = Point("server", r"235 2\.7\.0 ")


class Trouble:
    """A daemon before a relay, which gets into trouble run by run."""

    def __init__(self, box: Box, relay: LedgerRelay) -> None:
        self.box = box
        self.relay = relay
        self._numbers = itertools.count(1)
        self._seen = 0  # of the ledger
        self.activity = ""

    def strike(self, point: Point, deed: Deed, *, times: int = 1) -> None:
        """Go through a run in which the relay does this at that point."""
        struck = 0

        async def count() -> bool | bytes:
            nonlocal struck
            struck += 1
            return await deed()

        self.begin(point, count, times=times)
        self.finish()
        assert struck == times

    def begin(self, point: Point, deed: Deed, *, times: int = 1) -> None:
        """Begin a run, with sessions that are yet to be opened, in which the relay does this at that point."""
        self.box.wait(lambda: not self.holding(), "the last trouble to be over")
        self.relay.call(self.relay.smtp.hang_up())
        self.relay.smtp.at(point, deed, times=times)
        self._seen = len(self.relay.ledger())
        self.activity = f"run-{next(self._numbers)}"
        self.box.schedule(self.activity)

    def finish(self) -> None:
        self.box.wait(lambda: self.box.run_state(self.activity) == "sent", "the run to be sent")

    def doubled(self) -> int:
        """See that everybody got it and that nobody is blamed; return how many messages were one too many."""
        times = Counter(address for _, address in self.relay.ledger()[self._seen :])
        assert set(times) == set(_PEOPLE.values()), "nobody is forgotten"
        assert self.box.counts(self.activity) == {"accepted": len(_PEOPLE)}
        for table in (tables.bounce, tables.recipient_status):
            assert self.box.rows(sa.select(table)) == [], "nobody is blamed"
        assert all(row.receive for row in self.box.rows(sa.select(tables.opt_in.c.receive)))
        with self.box.database.look() as connection:
            assert tally.differences(connection) == []
        return sum(times.values()) - len(times)

    def attempts(self) -> list[int]:
        """Return the number of attempts of each delivery of the run, the highest first."""
        query = (
            sa.select(tables.delivery.c.attempt)
            .join(tables.run, tables.run.c.id == tables.delivery.c.run_id)
            .join(tables.activity, tables.activity.c.id == tables.run.c.activity_id)
            .where(tables.activity.c.name == self.activity)
        )
        return sorted((row.attempt for row in self.box.rows(query)), reverse=True)

    def holding(self) -> str:
        """Return what the daemon says holds it back."""
        (row,) = self.box.rows(sa.select(tables.node.c.holding).where(tables.node.c.lost_at.is_(None)))
        return str(row.holding.get("main", ""))


@pytest.fixture(scope="module")
def trouble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trouble]:
    """Return a daemon at work."""
    with _at_work(tmp_path_factory.mktemp("trouble")) as (box, relay):
        box.start()
        yield Trouble(box, relay)
        assert box.stop() == 0


@pytest.fixture(scope="module")
def members_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trouble]:
    """Return a daemon with one connection, which logs in with a token that a command makes anew each time."""
    folder = tmp_path_factory.mktemp("members")
    command = folder / "token"
    command.write_text(f"#!/bin/sh\necho >> {folder}/tokens\necho token-$(wc -l < {folder}/tokens)\n")
    command.chmod(0o700)
    login = f'username = "shop"\ntoken_command = ["{command}"]'
    with _at_work(folder, outbound=login, connections=1) as (box, relay):
        box.start()
        yield Trouble(box, relay)
        assert box.stop() == 0


@contextmanager
def _at_work(
    folder: Path, *, outbound: str = "", connections: int = _CONNECTIONS
) -> Iterator[tuple[Box, LedgerRelay]]:
    with LedgerRelay(folder / "ledger") as relay, ExitStack() as stack:
        settings = relay.settings
        settings["outbound"] += f"\n{outbound}"
        box = stack.enter_context(Box(folder, connections=connections, **settings))
        box.program[1:] = [impatient.__file__]
        box.populate(_PEOPLE)
        yield box, relay


async def drop() -> bool:
    """Close the connection."""
    return False


async def hang() -> bool:
    """Say nothing more, and read nothing more."""
    await asyncio.Event().wait()
    return False


def say(text: str) -> Callable[[], Any]:
    """Return the deed of saying something else."""

    async def deed() -> bytes:
        return text.encode("latin-1")

    return deed


# --- before the final dot: it was no attempt --------------------------------------------------------------

_BEFORE = {
    "dropped as a greeting": (_GREETING, drop),
    "dropped at EHLO": (_HELLO, drop),
    "dropped at MAIL": (_MAIL, drop),
    "dropped at RCPT": (_RCPT, drop),
    "dropped at DATA": (_DATA, drop),
    "silent as a greeting": (_GREETING, hang),
    "silent at MAIL": (_MAIL, hang),
    "silent at DATA": (_DATA, hang),
    "421 as a greeting": (_GREETING, say("421 4.3.2 too busy\r\n")),
    "421 at MAIL": (_MAIL, say("421 4.3.2 too busy\r\n")),
    "421 at RCPT": (_RCPT, say("421 4.3.2 too busy\r\n")),
    "550 at MAIL": (_MAIL, say("550 5.7.1 not you\r\n")),
    "a reply too many at MAIL": (_MAIL, say("250 2.1.0 Ok\r\n250 2.1.0 Ok\r\n")),
    "a reply too many at RCPT": (_RCPT, say("250 2.1.5 Ok\r\n250 2.1.5 Ok\r\n")),
    "a reply too few at MAIL": (_MAIL, say("")),
    "a reply too few at RCPT": (_RCPT, say("")),
    "a line too many in a reply": (_RCPT, say("250-2.1.5 Ok\r\n550 5.1.1 no\r\n")),
    "nonsense at DATA": (_DATA, say("\xff\x00\r\n")),
}


@pytest.mark.parametrize(("point", "deed"), _BEFORE.values(), ids=_BEFORE)
def test_what_breaks_before_the_final_dot_costs_nobody_an_attempt(
    trouble: Trouble, point: Point, deed: Deed
) -> None:
    trouble.strike(point, deed)
    assert trouble.doubled() == 0
    assert trouble.attempts() == [1] * len(_PEOPLE)


def test_what_breaks_in_the_body_may_be_in_doubt_but_is_not_doubled(trouble: Trouble) -> None:
    """The final dot may be under way to a relay that has hung up, before we hear of that."""
    trouble.strike(_BODY, drop)
    assert trouble.doubled() == 0
    assert trouble.attempts() in ([1] * len(_PEOPLE), [2] + [1] * (len(_PEOPLE) - 1))


def test_a_relay_that_turns_everybody_away_is_asked_in_steps(trouble: Trouble) -> None:
    before = trouble.relay.smtp.connections
    trouble.begin(_GREETING, say("421 4.3.2 too busy\r\n"), times=_CONNECTIONS + 4)
    trouble.box.wait(lambda: "which is down until" in trouble.holding(), "it to be found down")
    trouble.finish()
    # All that are open may try at once at first; when it is back, all may come again.
    assert trouble.relay.smtp.connections - before <= _CONNECTIONS + 4 + _CONNECTIONS
    assert trouble.doubled() == 0
    assert trouble.attempts() == [1] * len(_PEOPLE)


# --- after the final dot: what is in doubt is sent again --------------------------------------------------

_AFTER = {
    "the dot is lost": (_DOT, drop, 0),
    "the reply is lost": (_TAKEN, drop, 1),
    "it takes it and hangs": (_TAKEN, hang, 1),
    "it takes it and talks nonsense": (_TAKEN, say("2500 what\r\n"), 1),
}


@pytest.mark.parametrize(("point", "deed", "doubled"), _AFTER.values(), ids=_AFTER)
def test_what_breaks_after_the_final_dot_is_in_doubt_and_no_other(
    trouble: Trouble, point: Point, deed: Deed, doubled: int
) -> None:
    trouble.strike(point, deed)
    assert trouble.doubled() == doubled
    assert trouble.attempts() == [2] + [1] * (len(_PEOPLE) - 1)


# --- what a relay may well say ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param("450 4.2.0 Greylisted, try again later", id="greylisted"),
        pytest.param("452 4.3.1 Insufficient system storage", id="full"),
    ],
)
def test_who_is_put_off_gets_it_later(trouble: Trouble, reply: str) -> None:
    trouble.strike(_RCPT, say(f"{reply}\r\n"), times=2)
    assert trouble.doubled() == 0
    assert trouble.attempts() == [2, 2] + [1] * (len(_PEOPLE) - 2)


def test_a_relay_that_finds_us_too_fast_gets_fewer_connections_and_then_all_again(trouble: Trouble) -> None:
    trouble.begin(_RCPT, say("450 4.7.1 Too many messages, slow down\r\n"), times=4)
    trouble.box.wait(lambda: "asked for less" in trouble.holding(), "it to slow down")
    trouble.finish()
    assert trouble.doubled() == 0
    trouble.box.wait(lambda: not trouble.holding(), "it to be as fast as before")


# --- a login that does not last ---------------------------------------------------------------------------

_EXPIRED = {
    "530 at MAIL": (_MAIL, "530 5.7.0", 0),
    "535 at RCPT": (_RCPT, "535 5.7.8", 0),
    "454 at RCPT": (_RCPT, "454 4.7.0", 0),
    "530 at DATA": (_DATA, "530 5.7.0", 0),
    "530 at the dot": (_TAKEN, "530 5.7.0", 1),
    "421 at MAIL": (_MAIL, "421 4.7.0", 0),
}


@pytest.mark.parametrize(("point", "reply", "doubled"), _EXPIRED.values(), ids=_EXPIRED)
def test_a_login_that_expires_between_letters_is_renewed_and_nobodys_fault(
    members_only: Trouble, point: Point, reply: str, doubled: int
) -> None:
    tokens = members_only.box.folder / "tokens"
    before = len(tokens.read_text()) if tokens.exists() else 0
    members_only.strike(point, say(f"{reply} log in again\r\n"))
    # The tap lets the relay behind it take what is then refused.
    assert members_only.doubled() == doubled
    assert members_only.attempts() == [1] * len(_PEOPLE)
    assert len(tokens.read_text()) - before == 2, "a token at the start, and a new one"
    said = [event["why"] for event in members_only.box.events() if event["event"] == "relay.failed"]
    assert not [why for why in said if reply in why], "the relay is well, and nobody need wait for it"


def test_a_token_that_is_refused_gives_way_to_a_new_one(members_only: Trouble) -> None:
    members_only.strike(_LOGIN, say("535 5.7.8 the token has expired\r\n"))
    assert members_only.doubled() == 0
    assert members_only.attempts() == [1] * len(_PEOPLE)


# --- a cable that is pulled -------------------------------------------------------------------------------


def test_a_relay_that_cannot_be_reached_any_more_is_found_out(tmp_path: Path) -> None:
    with hosts(1) as ((host,), lines), _at_work(tmp_path) as (box, relay):
        for address, port in ((_RELAY, relay.smtp.port), ("127.0.0.1", relay.pop3.port)):
            lines.lay(host, address, port)
        config = box.folder / "config.toml"
        outbound = 'host = "localhost"\nehlo_name'
        config.write_text(config.read_text().replace(outbound, f'host = "{_RELAY}"\nehlo_name'))
        box.start(prefix=host.prefix)
        trouble = Trouble(box, relay)

        async def pull() -> bool:
            host.cut(_RELAY)
            return True

        trouble.begin(_TAKEN, pull)
        box.wait(lambda: "which is down until" in trouble.holding(), "it to be missed")
        box.wait(lambda: set(box.counts(trouble.activity)) == {"accepted", "queued"}, "all to be given back")
        host.mend(_RELAY)
        trouble.finish()
        assert 1 <= trouble.doubled() <= _CONNECTIONS, "what had its dot when the cable was pulled"
        assert box.stop() == 0
