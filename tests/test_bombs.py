"""Mail that is made to hurt: it is recorded or set aside, the rest of its batch goes on, and the daemon stays awake."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import inbox
from mailbound.model import Kind
from mailbound.reading import dsn, read

_SECONDS = 5.0  # that one mail may take
_LONGEST_PAUSE = 2.0  # seconds; generous, for a machine that is busy with other things

_MIB = 1024 * 1024
_HEADER = b"Return-Path: <>\r\nFrom: MAILER-DAEMON@x.example\r\nSubject: Undelivered Mail\r\n"
_NESTED = b"".join(
    b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level) for level in range(1000)
)
_FENCED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"


def _text(parameters: bytes, content: bytes, encoding: bytes = b"8bit") -> bytes:
    return b"Content-Type: text/plain%b\r\nContent-Transfer-Encoding: %b\r\n\r\n%b" % (
        parameters,
        encoding,
        content,
    )


BOMBS: dict[str, bytes] = {
    "parts in parts, 1000 deep": _HEADER + _NESTED + b"\r\nHello\r\n",
    "10 MB in parts, 99 deep": _HEADER + _NESTED[: _NESTED.index(b"--b99\r\n")] + bytes(10 * _MIB),
    "messages in messages, 1000 deep": _HEADER + b"Content-Type: message/rfc822\r\n\r\n" * 1000,
    "100,000 parts": _HEADER + _FENCED + b"--b\r\n\r\n.\r\n" * 100_000,
    "20,000 addressees": _HEADER + b"To: " + b"a@x.example, " * 20_000 + b"b@x.example\r\n\r\nHello\r\n",
    "24 kB of parameters": _HEADER + _text(b"; a=b" * 4_900, b"Hello\r\n"),
    "24 kB of continued parameters": _HEADER + _text(b"; a*0*='" * 3_000, b"Hello\r\n"),
    "24 kB of quotes": _HEADER + _text(b'; boundary="' + b'\\"' * 12_000, b"Hello\r\n"),
    "a Message-ID that is none": _HEADER + b"Message-ID: <[\r\nReferences: <@>, <a@[\r\n\r\nHello\r\n",
    "7,000 recipients, and words for each": _HEADER
    + b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\n"
    + b"".join(b"a%d@x\r\n" % number for number in range(7000))
    + b"--b\r\nContent-Type: message/delivery-status\r\n\r\n"
    + b"".join(b"Final-Recipient: a%d@x\r\nAction: failed\r\n\r\n" % number for number in range(7000)),
    "a charset that is no charset": _HEADER + _text(b"; charset=idna", b"\xfc" * 1000),
    "a charset that nobody knows": _HEADER + _text(b"; charset=x-\xff", b"\xfc" * 1000),
    "a charset that unpacks": _HEADER + _text(b"; charset=zlib", zlib.compress(bytes(100 * _MIB))),
    "line ends in names of fields": _HEADER
    + b"X\rBcc: a\r\n=?utf-8?q?X=0D=0ABcc?=: b\r\n\r: c\r\n\r\nHello\r\n",
    "30 MB of base64": _HEADER
    + _text(b"", b"QUJD" * 18 + b"\r\n", b"base64")
    + (b"QUJD" * 18 + b"\r\n") * 400_000,
    "10 MB of soft line ends": _HEADER + _text(b"", b"=\r\n" * 3_500_000, b"quoted-printable"),
    "10 MB of quoted octets": _HEADER + _text(b"", b"=41" * 3_500_000, b"quoted-printable"),
    "a header without an end": _HEADER + b"X-Spam: yes\r\n" * 1_000_000,
    "a field without an end": _HEADER + b"X-Spam: yes\r\n" + b" and more\r\n" * 1_000_000,
    "a line of 50 MB": _HEADER + b"\r\n" + b"a" * (50 * _MIB),
    "a line of brackets": _HEADER + b"\r\nIt was not delivered:\r\n" + b"<" * _MIB,
    "1,000 pages": _HEADER
    + _FENCED
    + (b"--b\r\nContent-Type: text/html\r\n\r\n" + b"<p>a</p>\r\n" * 500) * 1000,
    "200,000 recipients": _HEADER
    + b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n"
    + b"Content-Type: message/delivery-status\r\n\r\n"
    + b"Final-Recipient: a@x\r\nAction: failed\r\n\r\n" * 200_000,
    "NULs": bytes(_MIB),
}
_REPORT = (Path(__file__).parent / "mails" / "postfix-user-unknown.eml").read_bytes()


@asynccontextmanager
async def _heartbeat() -> AsyncIterator[list[float]]:
    """Give the moments at which the loop was free, for as long as the block lasts."""
    beats = [time.monotonic()]

    async def beat() -> None:
        while True:
            await asyncio.sleep(0.01)
            beats.append(time.monotonic())

    beating = asyncio.create_task(beat())
    try:
        yield beats
    finally:
        beating.cancel()
        beats.append(time.monotonic())


pytestmark = pytest.mark.timeout(300)  # whoever comes first waits for all the bombs to be read


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], list[Any], float]]:
    """Return what became of each bomb, of the reports between them, and the longest pause of the loop."""

    async def main() -> tuple[list[Any], float]:
        with inbox.database_at(f"sqlite:///{tmp_path_factory.mktemp('bombs')}/mailbound.db") as database:
            inbox.arrive(database, *(content for bomb in BOMBS.values() for content in (bomb, _REPORT)))
            async with inbox.recording(database, seconds=_SECONDS) as (one, _), _heartbeat() as beats:
                await inbox.record_all(one, database)
            pauses = [after - before for before, after in itertools.pairwise(beats)]
            return inbox.mails(database), max(pauses)

    mails, pause = asyncio.run(main())
    return dict(zip(BOMBS, mails[::2], strict=True)), mails[1::2], pause


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_recorded_or_set_aside(recorded, name: str) -> None:
    mail = recorded[0][name]
    assert mail.state in {"read", "poison"}
    assert mail.why


def test_what_lies_between_bombs_is_read(recorded) -> None:
    assert {(mail.state, mail.kind) for mail in recorded[1]} == {("read", Kind.BOUNCE)}


def test_a_report_names_so_many_recipients_and_no_more() -> None:
    found = read(BOMBS["7,000 recipients, and words for each"]).recipients
    assert len(found) == dsn.RECIPIENTS_LIMIT


def test_the_loop_is_awake_while_bombs_are_read(recorded) -> None:
    assert recorded[2] < _LONGEST_PAUSE


def test_the_loop_is_awake_while_a_reader_hangs(sqlite_url: str) -> None:
    async def main() -> None:
        with inbox.database_at(sqlite_url) as database:
            inbox.arrive(database, _REPORT, _REPORT + b"\n")
            async with inbox.recording(database, seconds=1.0) as (one, reader):
                await inbox.read(reader, _REPORT)
                assert reader._worker is not None
                os.kill(reader._worker.process.pid, signal.SIGSTOP)
                async with _heartbeat() as beats:
                    assert await one.record() == 2
                assert len(beats) > 10, "it may be late, but it is not asleep for the whole second"
            assert [mail.state for mail in inbox.mails(database)] == ["read", "read"], (
                "another worker reads them"
            )

    asyncio.run(main())
