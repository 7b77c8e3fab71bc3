"""Random courses of an inbound account: mail, faults of its server, and deaths of the daemon at every window.

Whatever happens, a mail is on the server or in safety, it has one outcome, and what it says counts once.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import inbox
from mailbound import classify, config, mailbox, tokens
from mailbound.database import inbound_mail, schema, tables, token_keys
from mailbound.database.engine import Database
from mailbound.database.leases import Lease
from mailbound.errors import MailboxError
from mailbound.inbound import Reader, Recorder, recorder
from mailbound.mailbox import pop3
from mailbound.tokens import Purpose
from scripted_pop3 import HANG_UP, ScriptedPop3
from world import NODE, NOW, World

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


class Killed(BaseException):
    """The daemon died here. Nothing may catch it."""


class FrailDatabase(Database):
    """A database whose daemon dies at its next commit, shortly before or after it."""

    dies: str | None = None

    async def run(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a transaction, and die if it is time."""
        dies, self.dies = self.dies, None

        def doomed(connection: sa.Connection, *args: Any, **kwargs: Any) -> Any:
            result = function(connection, *args, **kwargs)
            if dies == "before":
                raise Killed
            return result

        result = await super().run(doomed, *args, **kwargs)
        if dies == "after":
            raise Killed
        return result


class Mail(NamedTuple):
    """One mail on the server. Two may be the same."""

    uid: str
    content: bytes


class Fault(NamedTuple):
    """What the server does wrong in a session: at which command, and how."""

    command: str
    answer: Any
    removes: bool = False  # at QUIT, the mails are gone though nothing says so

    def script(self, count: int) -> dict[str, Any]:
        """Return what it does of it, where the command has a number of a mail that is there."""
        number = self.command.partition(" ")[2]
        return {self.command: self.answer} if not number or int(number) <= count else {}


REFUSED = b"-ERR no\r\n"
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

    async def session(self, fetch: Any, fault: Fault | None) -> None:
        """Let a fetcher in, with a fault or without."""
        broken = fault.script(len(self.mails)) if fault else {}
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


class Course:
    """One course of events, with what must come of it."""

    def __init__(
        self,
        database: FrailDatabase,
        reader: Reader,
        tokens_of: Mapping[str, str],
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
        self._reader = reader
        self._tokens_of = tokens_of

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

    async def fetch(self, fault: Fault | None, dies: str | None) -> None:
        async def fetch(port: int) -> None:
            async def opened() -> mailbox.Mailbox:
                return await pop3.open(
                    host="127.0.0.1", port=port, tls="insecure", username="bounces", password="secret"
                )

            fetcher = inbox.fetcher_of(self.database, opened, delete=self.delete)
            with self.mortal(dies):
                await fetcher.fetch()

        await self.server.session(fetch, fault)

    async def record(self, commits: int, dies: str | None) -> None:
        """Read; the daemon may die at the first commit, which counts the tries, or at the second one."""
        parts = recorder.Parts(
            database=self.database,
            reader=self._reader,
            rules=classify.rules(),
            limits=config.Policy(),
            keep_for=timedelta(days=90),
            lease=Lease(self.database, "reading", node_id=NODE),
            clock=lambda: NOW,
        )
        one = Recorder(parts)
        if commits == 2 and dies:
            written = one._write

            async def doomed(reports: Any) -> None:
                self.database.dies = dies
                await written(reports)

            one._write = doomed  # type: ignore[method-assign]
            dies = None
        with self.mortal(dies):
            await one.record()

    @contextmanager
    def mortal(self, dies: str | None) -> Iterator[None]:
        """Let the daemon die in what follows; the next event finds another one."""
        self.database.dies = dies
        try:
            yield
        except Killed:
            self.deaths += 1
        self.database.dies = None

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


_dies = st.sampled_from([None, None, "before", "after"])
_puts = st.tuples(
    st.just("put"),
    st.sampled_from(PEOPLE),
    st.sampled_from(list(SAYINGS)),
    st.sampled_from(["new", "new", "same uid", "twin"]),
)
EVENTS = st.one_of(
    _puts,
    _puts,
    st.tuples(st.just("fetch"), st.sampled_from(FAULTS), st.none()),
    st.tuples(st.just("fetch"), st.none(), _dies),
    st.tuples(st.just("record"), st.sampled_from([1, 2]), _dies),
)


class Ground(NamedTuple):
    """What every course begins with: a database in which everybody was sent something, and a reader."""

    file: Path
    reader: Reader
    tokens_of: dict[str, str]


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
    yield Ground(folder / "ground.db", reader, tokens_of)
    reader.close()


@settings(
    max_examples=round(30 * SCALE),
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
        database = FrailDatabase(f"sqlite:///{file}", checkpoints=True)
        try:
            course = Course(database, ground.reader, ground.tokens_of, delete=delete, eager=eager and delete)
            for name, *arguments in events:
                await getattr(course, name)(*arguments)
                course.check()
            for _ in range(len(course.ever) + 3):  # what was tried before is read alone
                await course.fetch(None, None)
                await course.record(1, None)
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
