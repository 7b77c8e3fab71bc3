"""From an IMAP folder into the database: on Dovecot, and on a script where Dovecot cannot be made to misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import imaplib
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

import inbox
from box import Box
from ledger_relay import Point
from mailbound import config
from mailbound.errors import MailboxError
from mailbound.inbound import Fetcher
from mailbound.mailbox import SessionError, Trouble, imap, opening
from scripted_imap import HANG_UP, SAY_NOTHING, ScriptedImap, capable
from servers.mailnet import PASSWORD, MailNet
from tapped import tapped


@asynccontextmanager
async def _left(one: Fetcher) -> AsyncIterator[Fetcher]:
    """Give a fetcher, and let it end its session in the end."""
    try:
        yield one
    finally:
        await one._leave()


def _scripted(server: ScriptedImap, **more: Any) -> Any:
    return functools.partial(
        imap.open,
        host="127.0.0.1",
        port=server.port,
        tls="insecure",
        username="bounces",
        password="secret",
        **more,
    )


def _dovecot(net: MailNet, user: str, **more: Any) -> Any:
    account = {"host": "localhost", "port": net.ports["imaps"], "username": user, "password": PASSWORD}
    return functools.partial(imap.open, **account | {"ca_file": net.ca} | more)


@contextmanager
def _webmail(net: MailNet, user: str) -> Iterator[imaplib.IMAP4]:
    """Give another client of the same mailbox."""
    with imaplib.IMAP4("127.0.0.1", net.ports["imap"]) as client:
        client.login(user, PASSWORD)
        client.select("INBOX")
        yield client


# --- Dovecot ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "there", "archived"),
    [("delete", 0, 0), ("archive", 0, 250), ("keep", 250, 0)],
    ids=["delete", "archive", "keep"],
)
def test_a_full_folder_is_kept_batch_by_batch_and_then_let_go(
    mailnet: MailNet, sqlite_url: str, after: str, there: int, archived: int
) -> None:
    user = f"full-{after}@sender.test"
    for number in range(250):
        mailnet.deliver(user, inbox.MAIL % number)

    async def main() -> None:
        opened = _dovecot(mailnet, user, after_storing=after, archive_folder="Gelesen äöü")
        with inbox.database_at(sqlite_url) as database:
            async with _left(inbox.fetcher_of(database, opened, delete=after != "keep")) as one:
                assert not await one.fetch()
                assert not await one.fetch(), "there is nothing new"
            assert sorted(inbox.kept(database)) == sorted(inbox.MAIL % number for number in range(250))

    asyncio.run(main())
    assert len(mailnet.mails(user)) == there
    archive = mailnet.maildir(user) / ".Gelesen &APYA5AD8-".replace("APYA5AD8", "AOQA9gD8")
    files = [*archive.glob("cur/*"), *archive.glob("new/*")]
    assert len(files) == archived


def test_what_others_have_marked_as_deleted_survives_until_we_have_read_it(
    mailnet: MailNet, sqlite_url: str
) -> None:
    user = "marked@sender.test"
    mailnet.deliver(user, inbox.MAIL % 1)

    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            mailbox = await _dovecot(mailnet, user)()
            items = await mailbox.list()
            mailnet.deliver(user, inbox.MAIL % 2)  # it comes too late to be in the list
            with _webmail(mailnet, user) as client:
                client.store("2", "+FLAGS", r"(\Deleted)")
                await mailbox.delete(items)
            assert len(mailnet.mails(user)) == 1
            await mailbox.close(commit=True)
            async with _left(inbox.fetcher_of(database, _dovecot(mailnet, user))) as one:
                await one.fetch()
            assert inbox.kept(database) == [inbox.MAIL % 2]

    asyncio.run(main())


@pytest.mark.parametrize("after", ["keep", "delete"])
def test_a_folder_that_is_counted_anew_loses_nothing_and_doubles_nothing(
    mailnet: MailNet, database_url: str, after: str
) -> None:
    user = f"anew-{after}-{'pg' if 'postgres' in database_url else 'lite'}@sender.test"
    for number in range(3):
        mailnet.deliver(user, inbox.MAIL % number)

    async def main() -> None:
        keeping = _dovecot(mailnet, user, after_storing="keep")
        with inbox.database_at(database_url) as database:
            async with _left(inbox.fetcher_of(database, keeping, delete=False)) as one:
                await one.fetch()
            before = {mail.uid for mail in inbox.mails(database)}
            mailnet.doveadm("mailbox", "update", "-u", user, "--uid-validity", "12345", "INBOX")
            mailnet.deliver(user, inbox.MAIL % 3)
            opened = _dovecot(mailnet, user, after_storing=after)
            async with _left(inbox.fetcher_of(database, opened, delete=after != "keep")) as one:
                await one.fetch()
            after_all = {mail.uid for mail in inbox.mails(database)}
            assert len(after_all) == 4
            assert not before & after_all, "each has the uid that it is found by now"
            assert Counter(inbox.kept(database)) == Counter(inbox.MAIL % number for number in range(4))

    asyncio.run(main())


def test_a_mail_of_50_mb_is_kept_by_its_head(mailnet: MailNet, sqlite_url: str) -> None:
    user = "large@sender.test"
    head = inbox.MAIL % 1
    mailnet.deliver(user, head + b"0123456789\r\n" * 4_200_000)

    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            async with _left(inbox.fetcher_of(database, _dovecot(mailnet, user))) as one:
                await one.fetch()
            (mail,) = inbox.mails(database)
            assert (mail.truncated, mail.size_octets) == (True, len(head) + 50_400_000)
            (content,) = inbox.kept(database)
            assert content.startswith(head)
            assert len(content) < 300_000

    tracemalloc.start()
    try:
        asyncio.run(main())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000
    assert mailnet.mails(user) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"password": "wrong"}, Trouble.CREDENTIALS),
        ({"folder": "Nowhere"}, Trouble.PERMANENT),
        ({"host": "127.0.0.2"}, Trouble.NETWORK),
        ({"ca_file": None}, Trouble.TLS),
    ],
    ids=["password", "folder", "host", "authority"],
)
def test_a_mailbox_that_cannot_be_opened_says_why(
    mailnet: MailNet, change: dict[str, Any], expected: Trouble
) -> None:
    async def main() -> None:
        with pytest.raises(SessionError) as raised:
            await _dovecot(mailnet, "why@sender.test", **change)()
        assert raised.value.trouble is expected

    asyncio.run(main())


def test_a_new_bounce_is_acted_on_though_the_next_poll_is_an_hour_away(
    mailnet: MailNet, tmp_path: Path
) -> None:
    outbound = f'port = {mailnet.ports["relay"]}\ntls = "insecure"'
    inbound = f'port = {mailnet.ports["imaps"]}\ntls = "implicit"\nca_file = "{mailnet.ca}"'
    with Box(
        tmp_path,
        protocol="imap",
        poll="1h",
        bounces="idle@sender.test",
        outbound=outbound,
        inbound=inbound,
    ) as box:
        box.populate({"unknown": "nobody@remote.test"})
        box.start()
        box.wait(lambda: "Login: user=<idle@sender.test>" in mailnet.log(), "the login")
        box.schedule("spring")
        box.wait(lambda: box.states("spring") == {"unknown": "bounced"}, "the bounce to be acted on")
        assert mailnet.mails("idle@sender.test") == []
        assert "holds 0 mails" in box.cli("doctor")
        assert box.stop() == 0


# --- killed between fetch, commit and expunge ---------------------------------------------------------------

_COUNT = 30
_POINTS = {
    "fetch asked for": Point("client", r"\w+ UID FETCH \S+ \(UID BODY"),
    "in the middle of a mail": Point("server", "Subject:", 7),
    "fetched, not committed": Point("server", "Subject:", _COUNT),
    "committed, nothing marked": Point("client", r"\w+ UID STORE"),
    "marked, reply held": Point("server", r"\* \d+ FETCH .*Deleted|\w+ OK Store"),
    "EXPUNGE held": Point("client", r"\w+ UID EXPUNGE"),
    "EXPUNGE passed": Point("client", r"\w+ UID EXPUNGE", passed=True),
    "half of it expunged": Point("server", r"\* \d+ EXPUNGE", _COUNT // 2),
    "expunged, reply held": Point("server", r"\w+ OK Expunge"),
}


@pytest.mark.parametrize("point", _POINTS.values(), ids=_POINTS)
def test_a_daemon_that_is_killed_deletes_nothing_uncommitted_and_records_nothing_twice(
    mailnet: MailNet, tmp_path: Path, point: Point
) -> None:
    user = f"killed-{list(_POINTS.values()).index(point)}@sender.test"
    everything = {inbox.MAIL % number for number in range(_COUNT)}
    for mail in everything:
        mailnet.deliver(user, mail)
    with tapped(mailnet.ports["imap"]) as tap:
        inbound = f'port = {tap.port}\ntls = "insecure"'
        outbound = f'port = {mailnet.ports["closed"]}\ntls = "insecure"'
        with Box(tmp_path, protocol="imap", bounces=user, inbound=inbound, outbound=outbound) as box:

            async def strike() -> bool:
                box.strike()
                return False

            tap.at(point, strike)
            box.launch()
            box.ended()
            there = set(mailnet.mails(user))
            assert everything - there <= set(inbox.kept(box.database)), (
                "nothing is deleted that is not stored"
            )
            box.start()
            box.wait(lambda: not mailnet.mails(user), "the mailbox to be emptied")
            assert box.stop() == 0
            assert Counter(inbox.kept(box.database)) == Counter(everything)


# --- a scripted server --------------------------------------------------------------------------------------


@pytest.mark.parametrize("deed", [HANG_UP, b"* BYE\r\n"], ids=["hangs up", "BYE"])
@pytest.mark.parametrize(
    ("phase", "stored"),
    [
        ("SELECT", 0),
        ("UID SEARCH", 0),
        ("UID FETCH", 0),
        ("UID FETCH 1:2 (UID BODY", 0),
        ("UID STORE", 2),
        ("UID EXPUNGE", 2),
    ],
)
def test_a_connection_that_drops_in_any_phase_deletes_nothing_that_is_not_stored(
    sqlite_url: str, phase: str, stored: int, deed: Any
) -> None:
    async def main() -> None:
        woken: list[int] = []
        with inbox.database_at(sqlite_url) as database:
            async with ScriptedImap({phase: deed}) as server:
                one = inbox.fetcher_of(database, _scripted(server), arrived=lambda: woken.append(1))
                with pytest.raises(MailboxError):
                    await one.fetch()
                assert len(inbox.kept(database)) == stored
                assert len(woken) == bool(stored), "what is stored is read, whatever becomes of the rest"
                assert stored or not any("STORE" in command for command in server.heard)
            async with ScriptedImap() as server, _left(inbox.fetcher_of(database, _scripted(server))) as one:
                await one.fetch()
                assert "UID EXPUNGE 1:2" in server.heard
            assert len(inbox.kept(database)) == 2

    asyncio.run(main())


def test_one_session_serves_many_rounds(sqlite_url: str) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            async with ScriptedImap() as server:
                stopping = asyncio.Event()
                running = asyncio.create_task(inbox.fetcher_of(database, _scripted(server)).run(stopping))
                for times in range(1, 4):
                    await server.hears("IDLE", times=times)
                    server.push(b"* 3 EXISTS\r\n")
                await server.hears("IDLE", times=4)
                stopping.set()
                await running
                assert server.sessions == 1

    asyncio.run(main())


def test_a_server_that_refuses_idle_is_polled_without_an_alarm(sqlite_url: str) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database, structlog.testing.capture_logs() as logs:
            async with ScriptedImap({"IDLE": b"TAG NO not now\r\n"}) as server:
                stopping = asyncio.Event()
                one = inbox.fetcher_of(database, _scripted(server), poll=timedelta(milliseconds=1))
                running = asyncio.create_task(one.run(stopping))
                await server.hears("IDLE", times=4)
                stopping.set()
                await running
                assert server.sessions >= 4
        told = [
            (entry["event"], entry["log_level"]) for entry in logs if entry["event"].startswith("mailbox")
        ]
        assert told == [("mailbox.doubted", "warning")], "once"

    asyncio.run(main())


def test_what_cannot_be_let_go_is_told_once_and_comes_after_what_is_new(sqlite_url: str) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database, structlog.testing.capture_logs() as logs:
            script = {"UID MOVE": b"TAG NO [OVERQUOTA] full\r\n"}
            async with ScriptedImap(script) as server:
                opened = _scripted(server, after_storing="archive", archive_folder="Read")
                async with _left(inbox.fetcher_of(database, opened)) as one:
                    assert not await one.fetch()
                    assert not await one.fetch()
                    server.script["UID SEARCH"] = b"* SEARCH 1 2 3\r\nTAG OK\r\n"
                    server.script["UID FETCH"] = b"TAG OK\r\n"
                    await one.fetch()
            assert [entry["uid"] for entry in logs if entry["event"] == "mail.withheld"] == ["7/1", "7/2"]
            assert len(inbox.kept(database)) == 2

    asyncio.run(main())


def test_a_locked_out_account_alarms_once_and_disturbs_no_other(sqlite_url: str) -> None:
    async def main() -> None:
        refusal = {"LOGIN": b"TAG NO [AUTHENTICATIONFAILED] no\r\n"}
        with inbox.database_at(sqlite_url) as database, structlog.testing.capture_logs() as logs:
            mute = {"CAPABILITY": SAY_NOTHING}
            async with ScriptedImap(refusal) as locked, ScriptedImap(mute) as silent, ScriptedImap() as good:
                stopping = asyncio.Event()
                servers = {"locked": locked, "silent": silent, "good": good}
                running = [
                    asyncio.create_task(
                        inbox.fetcher_of(database, _scripted(server), store=name).run(stopping)
                    )
                    for name, server in servers.items()
                ]
                await locked.hears("LOGIN")
                await silent.hears("CAPABILITY")
                for times in range(1, 4):
                    await good.hears("IDLE", times=times)
                    good.push(b"* 3 EXISTS\r\n")
                stopping.set()
                silent._writers[-1].close()
                await asyncio.gather(*running)
                assert locked.sessions == 1, "the next try is minutes away"
            alarms = [entry for entry in logs if entry["log_level"] == "error"]
            assert [(entry["event"], entry["store"]) for entry in alarms] == [("mailbox.failed", "locked")]
            assert alarms[0]["retry_in"] >= 300

    asyncio.run(main())


def test_a_refused_login_alarms_though_the_network_failed_before(sqlite_url: str) -> None:
    with inbox.database_at(sqlite_url) as database, structlog.testing.capture_logs() as logs:
        one = inbox.fetcher_of(database, None)
        troubles = [
            Trouble.NETWORK,
            Trouble.CREDENTIALS,
            Trouble.CREDENTIALS,
            Trouble.NETWORK,
            Trouble.NETWORK,
        ]
        for trouble in troubles:
            one._failed(SessionError(trouble, "why"))
        one._recovered()
        one._failed(SessionError(Trouble.CREDENTIALS, "again"))
    levels = [entry["log_level"] for entry in logs]
    assert levels == ["warning", "error", "warning", "warning", "warning", "info", "error"]


# --- tokens -------------------------------------------------------------------------------------------------


def _inbox(folder: Path, server: ScriptedImap, *tokens: str) -> config.Inbox:
    """Return an account whose command prints one token after the other, and then the last one again."""
    (folder / "tokens").write_text("".join(f"{token}\n" for token in tokens))
    program = folder / "token"
    program.write_text(
        f"#!/bin/sh\ncd {folder}\nhead -n 1 tokens\n"
        '[ "$(wc -l < tokens)" -gt 1 ] && sed -i 1d tokens\nexit 0\n'
    )
    program.chmod(0o755)
    return config.Inbox(
        address="bounces@example.com",
        host="127.0.0.1",
        port=server.port,
        tls="insecure",
        protocol="imap",
        username="bounces",
        token_command=[str(program)],
    )


_ASKED = {"AUTHENTICATE": b"+ \r\n", "CAPABILITY": capable("SASL-IR", "AUTH=XOAUTH2", "IDLE")}
_REFUSAL = b"TAG NO [AUTHENTICATIONFAILED] old\r\n"


def test_a_token_that_is_refused_is_fetched_once_more(tmp_path: Path) -> None:
    async def main() -> list[str]:
        answers = [_REFUSAL, b"TAG OK in\r\n"]
        async with ScriptedImap(_ASKED | {"dXNl": answers}) as server:
            mailbox = await opening.open(_inbox(tmp_path, server, "old", "new"), largest_octets=1000)
            await mailbox.close(commit=True)
            return [each for each in server.heard if each.startswith("dXNl")]

    assert len(set(asyncio.run(main()))) == 2


@pytest.mark.parametrize(
    ("tokens", "tries"), [(["same"], 1), (["one", "two", "three"], 2)], ids=["the same", "always another"]
)
def test_a_token_is_not_tried_again_for_ever(tmp_path: Path, tokens: list[str], tries: int) -> None:
    async def main() -> int:
        async with ScriptedImap(_ASKED | {"dXNl": _REFUSAL}) as server:
            with pytest.raises(SessionError) as raised:
                await opening.open(_inbox(tmp_path, server, *tokens), largest_octets=1000)
            assert raised.value.trouble is Trouble.CREDENTIALS
            return server.sessions

    assert asyncio.run(main()) == tries


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo no refresh token >&2; exit 3", "ended with 3: no refresh token"),
        ("true", "printed nothing"),
        ("echo '<html> error'", "printed no token"),
    ],
    ids=["fails", "nothing", "a page"],
)
def test_a_command_that_gives_no_token_is_trouble_that_may_pass_and_nothing_is_tried(
    tmp_path: Path, script: str, why: str
) -> None:
    async def main() -> int:
        async with ScriptedImap() as server:
            inbox = _inbox(tmp_path, server, "x")
            (tmp_path / "token").write_text(f"#!/bin/sh\n{script}\n")
            with pytest.raises(SessionError, match=why) as raised:
                await opening.open(inbox, largest_octets=1000)
            assert raised.value.trouble is Trouble.TEMPORARY
            return server.sessions

    assert asyncio.run(main()) == 0


def test_a_command_that_cannot_be_run_is_trouble_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with ScriptedImap() as server:
            inbox = _inbox(tmp_path, server, "x")
            (tmp_path / "token").unlink()
            with contextlib.suppress(FileNotFoundError), pytest.raises(SessionError, match="No such file"):
                await opening.open(inbox, largest_octets=1000)

    asyncio.run(main())
