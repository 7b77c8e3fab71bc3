"""Random courses of an inbound account: mail, faults of its server, and deaths of the daemon at every window.

Whatever happens, a mail is on the server or in safety, it has one outcome, and what it says counts once.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dying
import inbox
from dying import Death, Nursery
from mailbound import tokens
from mailbound.database import inbound_mail, schema, tables, token_keys
from mailbound.database.engine import Database
from mailbound.errors import MailboxError
from mailbound.inbound import Reader
from mailbound.tokens import Purpose
from scripted_pop3 import HANG_UP, ScriptedPop3
from world import NOW, World

SCALE = settings.default.max_examples / 100  # of the profile
PEOPLE = ["anna", "bert", "carl"]
MOST = 8  # mails on the server at once, so that no number begins another one

REPORT = """\
Delivered-To: bounces{plus}@example.com
From: MAILER-DAEMON@mx.example.net
Subject: {subject}
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net

Final-Recipient: rfc822; {name}@example.org
Action: {action}
Status: {status}
Diagnostic-Code: smtp; {status} {words}

--b--
"""
SAYINGS = {
    "dead": ("failed", "5.1.1", "User unknown"),
    "full": ("failed", "4.2.2", "Mailbox full"),
    "late": ("delayed", "4.4.1", "No answer"),
    "forged": ("failed", "5.1.1", "User unknown"),
}


class Mail(NamedTuple):
    """One mail on the server. Two may be the same."""

    uid: str
    content: bytes


KILL = "the daemon is killed"
"""What happens at a command, in place of an answer."""


class Fault(NamedTuple):
    """What goes wrong in a session: at which command, and how."""

    command: str
    answer: Any
    removes: bool = False  # at QUIT, the mails are gone though nothing says so

    def script(self, count: int) -> dict[str, Any]:
        """Return what it does of it, where the command has a number of a mail that is there."""
        number = self.command.partition(" ")[2]
        return {self.command: self.answer} if not number or int(number) <= count else {}


REFUSED = b"-ERR no\r\n"
DEATHS = [
    Fault("RETR 1", KILL),
    Fault("RETR 3", KILL),
    Fault("DELE 1", KILL),
    Fault("DELE 2", KILL),
    Fault("QUIT", KILL, removes=True),
    Fault("QUIT", KILL),
]
"""While mail comes; with it in safety, but not let go; with all let go, before and after the server does so."""

FAULTS = [
    None,
    None,
    *(Fault(f"RETR {number}", answer) for number in (1, 3) for answer in (HANG_UP, REFUSED)),
    *(Fault(f"DELE {number}", answer) for number in (1, 2) for answer in (HANG_UP, REFUSED)),
    *(Fault("QUIT", answer, removes) for answer in (HANG_UP, REFUSED) for removes in (True, False)),
    Fault("LIST", REFUSED),
    Fault("UIDL", HANG_UP),
]


@dataclass
class Server:
    """The mails of the account, and what a session leaves of them.

    One that is `eager` drops at QUIT whatever was retrieved, too (EXPIRE 0, RFC 2449 section 6.7).
    """

    eager: bool
    mails: list[Mail] = field(default_factory=list)

    async def session(self, fetch: Any, fault: Fault | None, kill: Any = None) -> None:
        """Let a fetcher in, with a fault or without; `kill` is for one that kills it."""
        broken = fault.script(len(self.mails)) if fault else {}
        broken = {command: kill if answer is KILL else answer for command, answer in broken.items()}
        async with ScriptedPop3({**self._script(), **broken}) as server:
            try:
                await fetch(server.port)
            except MailboxError:
                assert broken, "without a fault there is no trouble"
            finally:
                heard = list(server.heard)
        if "QUIT" in heard and ("QUIT" not in broken or (fault is not None and fault.removes)):
            goes = ("DELE", "RETR") if self.eager else ("DELE",)
            gone = {int(each.split()[1]) for each in heard if each.startswith(goes) and each not in broken}
            self.mails = [mail for number, mail in enumerate(self.mails, 1) if number not in gone]

    def _script(self) -> dict[str, bytes]:
        numbered = list(enumerate(self.mails, 1))
        sizes = "".join(f"{number} {len(mail.content)}\r\n" for number, mail in numbered)
        uids = "".join(f"{number} {mail.uid}\r\n" for number, mail in numbered)
        texts = {f"RETR {number}": b"+OK\r\n" + mail.content + b".\r\n" for number, mail in numbered}
        return {"LIST": f"+OK\r\n{sizes}.\r\n".encode(), "UIDL": f"+OK\r\n{uids}.\r\n".encode(), **texts}


class Ground(NamedTuple):
    """What every course begins with: a database in which everybody was sent something, a reader, and who dies."""

    file: Path
    reader: Reader
    nursery: Nursery
    tokens_of: dict[str, str]


class Course:
    """One course of events, with what must come of it."""

    def __init__(
        self,
        database: Database,
        ground: Ground,
        *,
        delete: bool,
        eager: bool,
    ) -> None:
        self.database = database
        self.server = Server(eager=eager)
        self.delete = delete
        self.ever: Counter[Mail] = Counter()
        self.deaths = 0
        self.said: dict[Mail, tuple[str, str]] = {}
        self._reader = ground.reader
        self._nursery = ground.nursery
        self._tokens_of = ground.tokens_of

    async def put(self, name: str, saying: str, kind: str) -> None:
        """A mail falls in: a new one, one with the uid of another, or the same one again."""
        if len(self.server.mails) >= MOST:
            return
        mail = self._write(name, saying)
        if kind == "same uid" and self.ever:
            mail = Mail(list(self.ever)[-1].uid, mail.content)
        elif kind == "twin" and self.server.mails:
            mail = self.server.mails[-1]
        self.said.setdefault(mail, (name, saying))
        self.ever[mail] += 1
        self.server.mails.append(mail)

    def _write(self, name: str, saying: str) -> Mail:
        action, status, words = SAYINGS[saying]
        number = sum(self.ever.values())
        text = REPORT.format(
            plus=f"+{self._tokens_of[name]}" if saying != "forged" else "",
            subject=f"mail {number}",
            name=name,
            action=action,
            status=status,
            words=words,
        )
        return Mail(f"uid{number}", text.replace("\n", "\r\n").encode())

    async def fetch(self, fault: Fault | None) -> None:
        """The daemon looks into the mailbox, and lives."""

        async def fetch(port: int) -> None:
            await inbox.fetcher_of(self.database, dying.open_mailbox(port), delete=self.delete).fetch()

        await self.server.session(fetch, fault)

    async def die_fetching(self, fault: Fault | None, death: Death | None) -> None:
        """It is killed at a command, or at the commit of what it fetched, if it comes so far."""
        pids: list[int] = []

        async def fetch(port: int) -> None:
            pids.append(self._nursery.start("fetch", self._url, death, port=port, delete=self.delete))
            await self._end()

        def kill() -> Any:
            os.kill(pids[0], signal.SIGKILL)
            return HANG_UP

        await self.server.session(fetch, fault, kill)

    async def record(self) -> None:
        """It reads, and lives."""
        await dying.recorder_of(self.database, self._reader).record()

    async def die_recording(self, death: Death) -> None:
        """It is killed at the first commit, which counts the tries, or at the second one, with the effects."""
        self._nursery.start("record", self._url, death)
        await self._end()

    @property
    def _url(self) -> str:
        return f"sqlite:///{self.database.path}"

    async def _end(self) -> None:
        status = await self._nursery.ended()
        assert status in {0, -signal.SIGKILL}
        self.deaths += status != 0

    def check(self) -> None:
        """Assert what holds at every moment."""
        with self.database.look() as connection:
            rows = connection.execute(sa.select(tables.inbound_mail)).all()
            kept = [Mail(row.uid, inbound_mail.raw(connection, row.id)) for row in rows]
            bounces = connection.execute(sa.select(tables.bounce)).all()
            changes = connection.execute(
                sa.select(tables.change).where(tables.change.c.cause == "bounce")
            ).all()
            states = dict(connection.execute(sa.select(tables.delivery.c.id, tables.delivery.c.state)).all())
        assert len(kept) == len(set(kept)), "a mail is kept once"
        assert set(kept) | set(self.server.mails) == set(self.ever), "it is on the server or in safety"
        read = {mail: row.id for mail, row in zip(kept, rows, strict=True) if row.state == "read"}
        poison = [row for row in rows if row.state == "poison"]
        assert not poison or self.deaths >= 2, "no mail is poison but for a daemon that died over it twice"
        expected = {(*self.said[mail], mail if self.said[mail][1] == "forged" else "") for mail in read}
        found = [self._outcome(row, read) for row in bounces]
        assert len(found) == len(set(found)), "a report counts once"
        assert set(found) == expected, "what was read is recorded, and nothing else"
        dead = {name for name, saying, _ in expected if saying == "dead"}
        assert Counter((row.kind, row.after) for row in changes) == Counter(
            {
                ("status", "undeliverable (no-such-user)"): len(dead),
                ("opt_in", "out (hard_bounce)"): len(dead),
            }
        )
        failed = {name for name, saying, _ in expected if saying in {"dead", "full"}}
        assert Counter(states.values()) == +Counter(
            bounced=len(failed), accepted=len(self._tokens_of) - len(failed)
        )

    def _outcome(self, row: Any, read: Mapping[Mail, int]) -> tuple[str, str, Any]:
        name = row.address.partition("@")[0]
        if row.evidence == "unsigned":
            (mail,) = (mail for mail, mail_id in read.items() if mail_id == row.mail_id)
            return name, "forged", mail
        saying = {"delayed": "late"}.get(row.action, "dead" if row.permanent else "full")
        return name, saying, ""


_puts = st.tuples(
    st.just("put"),
    st.sampled_from(PEOPLE),
    st.sampled_from(list(SAYINGS)),
    st.sampled_from(["new", "new", "same uid", "twin"]),
)
_commits = [Death(commit, before) for commit in (1, 2) for before in (True, False)]
EVENTS = st.one_of(
    _puts,
    _puts,
    st.tuples(st.just("fetch"), st.sampled_from(FAULTS)),
    st.tuples(st.just("die_fetching"), st.sampled_from(DEATHS), st.none()),
    st.tuples(st.just("die_fetching"), st.none(), st.sampled_from(_commits[:2])),
    st.tuples(st.just("record")),
    st.tuples(st.just("die_recording"), st.sampled_from(_commits)),
)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("inbound")
    database = Database(f"sqlite:///{folder}/ground.db", checkpoints=True)
    schema.upgrade(database)
    with database.begin() as connection:
        here = World(connection)
        for name in PEOPLE:
            here.person(name)
        key = token_keys.signing(connection, now=NOW)
        day = tokens.day_number(NOW)
        tokens_of = {
            name: tokens.for_delivery(key, Purpose.RETURN_PATH, delivery_id, attempt=1, day=day)
            for name, delivery_id in here.send(here.sending()).items()
        }
    database.close()
    reader = Reader()
    with Nursery() as nursery:
        yield Ground(folder / "ground.db", reader, nursery, tokens_of)
    reader.close()


@settings(
    max_examples=round(20 * SCALE),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(events=st.lists(EVENTS, min_size=4, max_size=16), delete=st.booleans(), eager=st.booleans())
def test_whatever_happens_no_mail_is_lost_and_each_counts_once(
    ground: Ground, events: list[tuple[Any, ...]], delete: bool, eager: bool
) -> None:
    async def main() -> None:
        file = ground.file.with_name("course.db")
        shutil.copy(ground.file, file)
        database = Database(f"sqlite:///{file}", checkpoints=True)
        try:
            course = Course(database, ground, delete=delete, eager=eager and delete)
            for name, *arguments in events:
                await getattr(course, name)(*arguments)
                course.check()
            for _ in range(len(course.ever) + 3):  # what was tried before is read alone
                await course.fetch(None)
                await course.record()
            course.check()
            assert not (delete and course.server.mails), "what is in safety has left the server"
            mails = inbox.mails(database)
            assert len(mails) == len(course.ever), "every mail is in safety"
            assert {mail.state for mail in mails} <= {"read", "poison"}, "and has its outcome"
        finally:
            database.close()
            for each in file.parent.glob("course.db*"):
                each.unlink()

    asyncio.run(main())
