"""Real peers: aiosmtpd in this loop, Postfix, and its smtp-sink."""

import asyncio
import contextlib
import socket

import pytest
from aiosmtpd.smtp import SMTP

from mailbound import relay
from mailbound.model import Letter, Phase, Result
from mailbound.relay import body
from servers import need, need_root

CONTENT = b"Subject: x\r\n\r\n.\r\n..\r\n.x\r\nend\r\n"
LETTER = Letter(1, 1, "bounces@shop.example", "ann@example.net", "abc", CONTENT)


async def yes():
    return True


def account(port, **values):
    return relay.Account(host="127.0.0.1", port=port, tls="insecure", ehlo_name="me.example", **values)


async def send(port, count=1, item=LETTER):
    session = await relay.open(account(port))
    outcomes = [await session.transact(item, yes) for _ in range(count)]
    await session.quit()
    return outcomes


# aiosmtpd


class Ledger:
    """Keeps every message; refuses recipients at full.example."""

    def __init__(self):
        self.envelopes = []

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
        if address.endswith("@full.example"):
            return "452 4.2.2 mailbox full"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        self.envelopes.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return "250 2.0.0 taken"


def with_aiosmtpd(scenario):
    async def main():
        ledger = Ledger()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: SMTP(ledger, enable_SMTPUTF8=True, hostname="peer.example", loop=loop), "127.0.0.1", 0
        )
        async with server:
            return await scenario(server.sockets[0].getsockname()[1]), ledger.envelopes

    return asyncio.run(main())


def test_aiosmtpd_gets_the_message_as_it_was():
    outcomes, envelopes = with_aiosmtpd(lambda port: send(port, 3))
    assert [outcome.result for outcome in outcomes] == [Result.ACCEPTED] * 3
    assert envelopes == [("bounces@shop.example", ["ann@example.net"], CONTENT)] * 3


@pytest.mark.parametrize("end", [b"\n.\r\n", b"\r.\r\n", b"\r\n.\n", b"\n.\n", b"\r.\r"])
def test_no_content_can_smuggle_a_second_message(end):
    smuggled = (
        b"Subject: x\r\n\r\nhello"
        + end
        + b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
    )
    item = Letter(1, 1, "bounces@shop.example", "ann@example.net", "abc", smuggled)
    (outcome,), envelopes = with_aiosmtpd(lambda port: send(port, item=item))
    assert outcome.result is Result.ACCEPTED
    assert envelopes == [("bounces@shop.example", ["ann@example.net"], body.with_crlf(smuggled))]


def test_a_refusal_by_aiosmtpd_is_followed_by_the_next_letter():
    async def scenario(port):
        session = await relay.open(account(port))
        full = Letter(2, 1, "bounces@shop.example", "bob@full.example", "abc", CONTENT)
        outcomes = [await session.transact(item, yes) for item in (LETTER, full, LETTER)]
        await session.quit()
        return outcomes

    outcomes, envelopes = with_aiosmtpd(scenario)
    assert [outcome.result for outcome in outcomes] == [Result.ACCEPTED, Result.DEFERRED, Result.ACCEPTED]
    assert len(envelopes) == 2


def test_a_large_body_arrives_whole():
    content = b"Subject: x\r\n\r\n" + b".dots and words\r\n" * 400_000
    item = Letter(1, 1, "bounces@shop.example", "ann@example.net", "abc", content)
    (outcome,), envelopes = with_aiosmtpd(lambda port: send_unlimited(port, item))
    assert outcome.result is Result.ACCEPTED
    assert envelopes[0][2] == content


async def send_unlimited(port, item):
    session = await relay.open(account(port))
    session.extensions = relay.Extensions()  # aiosmtpd states a limit of 32 MiB, and takes what it is given
    outcome = await session.transact(item, yes)
    await session.quit()
    return [outcome]


# A relay that stops reading


def test_a_relay_that_stops_reading_a_body_leaves_no_doubt():
    over = []

    async def deaf(reader, writer):
        over.append(asyncio.Event())
        for reply in (b"220 hi", b"250-hi\r\n250 PIPELINING", b"250 ok\r\n250 ok\r\n354 go"):
            writer.write(reply + b"\r\n")
            await reader.readline()
        await over[0].wait()
        writer.transport.abort()

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            server = await asyncio.start_server(deaf, sock=listener, limit=1024)
            port = listener.getsockname()[1]
            marked = []

            async def mark():
                marked.append(True)
                return True

            session = await relay.open(account(port, deadlines=relay.Deadlines(block=0.1)))
            item = Letter(
                1, 1, "bounces@shop.example", "ann@example.net", "abc", b"x" * 78 + b"\r\n" * 20_000_000
            )
            outcome = await session.transact(item, mark)
            over[0].set()
            server.close()
            await server.wait_closed()
            return outcome, marked

    outcome, marked = asyncio.run(main())
    assert (outcome.result, outcome.phase) == (Result.UNTRIED, Phase.BODY)
    assert "read nothing for 0.1 s" in outcome.why
    assert not marked


# smtp-sink


@contextlib.asynccontextmanager
async def sink(*options):
    need_root()  # it insists on changing its user
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        need("smtp-sink"),
        *options,
        "-u",
        "nobody",
        f"127.0.0.1:{port}",
        "10",
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        for _ in range(1000):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                assert process.returncode is None
                await asyncio.sleep(0.01)  # it says nothing when it is ready
            else:
                writer.close()
                await writer.wait_closed()
                break
        yield port
    finally:
        process.kill()
        await process.wait()


R, P = Result, Phase


@pytest.mark.parametrize(
    ("options", "result", "phase"),
    [
        pytest.param([], R.ACCEPTED, P.FINAL_DOT, id="all is well"),
        pytest.param(["-p"], R.ACCEPTED, P.FINAL_DOT, id="no PIPELINING"),
        pytest.param(["-N"], R.ACCEPTED, P.FINAL_DOT, id="no DSN"),
        pytest.param(["-e"], R.ACCEPTED, P.FINAL_DOT, id="no ESMTP"),
        pytest.param(["-f", "MAIL"], R.UNTRIED, P.MAIL, id="5yz to MAIL"),
        pytest.param(["-r", "RCPT"], R.DEFERRED, P.RCPT, id="4yz to RCPT"),
        pytest.param(["-f", "RCPT"], R.REFUSED, P.RCPT, id="5yz to RCPT"),
        pytest.param(["-f", "DATA"], R.REFUSED, P.DATA, id="5yz to DATA"),
        pytest.param(["-r", "."], R.DEFERRED, P.FINAL_DOT, id="4yz to the final dot"),
        pytest.param(["-f", "."], R.REFUSED, P.FINAL_DOT, id="5yz to the final dot"),
        pytest.param(["-Q", "MAIL"], R.UNTRIED, P.MAIL, id="421 to MAIL"),
        pytest.param(["-Q", "RCPT"], R.UNTRIED, P.RCPT, id="421 to RCPT"),
        pytest.param(["-Q", "."], R.DEFERRED, P.FINAL_DOT, id="421 to the final dot"),
        pytest.param(["-q", "MAIL"], R.UNTRIED, P.MAIL, id="hangs up at MAIL"),
        pytest.param(["-q", "RCPT"], R.UNTRIED, None, id="hangs up at RCPT"),
        pytest.param(["-q", "DATA"], R.UNTRIED, None, id="hangs up at DATA"),
        pytest.param(["-q", "."], R.UNKNOWN, P.FINAL_DOT, id="hangs up at the final dot"),
    ],
)
def test_smtp_sink(options, result, phase):
    async def main():
        async with sink(*options) as port:
            return (await send(port))[0]

    outcome = asyncio.run(main())
    assert outcome.result is result
    # In a group the replies before the end may be lost with it.
    assert phase is None or outcome.phase is phase


@pytest.mark.parametrize("options", [[], ["-p"]], ids=["pipelined", "stepwise"])
def test_smtp_sink_takes_many_letters_in_many_sessions(options):
    async def main():
        async with sink(*options) as port:
            return await asyncio.gather(*(send(port, 50) for _ in range(5)))

    outcomes = [outcome for session in asyncio.run(main()) for outcome in session]
    assert {outcome.result for outcome in outcomes} == {Result.ACCEPTED}
    assert len(outcomes) == 250


# Postfix


@pytest.mark.parametrize(("tls", "role"), [("starttls", "submission"), ("implicit", "smtps")])
def test_postfix_takes_letters_under_tls_with_a_password(mailnet, tls, role):
    name = f"relay-peer-{tls}@sender.test"
    to = relay.Account(
        host="127.0.0.1",
        port=mailnet.ports[role],
        tls=tls,
        username=name,
        password="secret",
        ca_file=str(mailnet.ca),
        ehlo_name="me.example",
    )
    known = Letter(1, 1, name, name, "abc", CONTENT)
    wrong = Letter(2, 1, name, "ann@two..dots.example", "abc", CONTENT)

    async def main():
        session = await relay.open(to)
        outcomes = [await session.transact(item, yes) for item in (known, wrong, known)]
        usable = session.usable
        await session.quit()
        return outcomes, usable, session.extensions

    outcomes, usable, extensions = asyncio.run(main())
    assert [outcome.result for outcome in outcomes] == [Result.ACCEPTED, Result.REFUSED, Result.ACCEPTED]
    assert outcomes[1].phase is Phase.RCPT
    assert outcomes[1].reply.text.startswith("5.1.3")
    assert usable
    assert extensions.pipelining
    assert extensions.dsn
    assert len(mailnet.mails(name, at_least=2)) == 2


def test_postfix_refuses_a_wrong_password_once(mailnet):
    to = relay.Account(
        host="127.0.0.1",
        port=mailnet.ports["smtps"],
        tls="implicit",
        username="relay-peer@sender.test",
        password="wrong",
        ca_file=str(mailnet.ca),
        ehlo_name="me.example",
    )
    with pytest.raises(relay.AuthRefused) as caught:
        asyncio.run(relay.open(to))
    assert caught.value.permanent
    assert caught.value.reply.code == 535
