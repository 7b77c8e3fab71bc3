"""The simulated mailbox, octet by octet and with poplib."""

import asyncio
import poplib

import pytest

from mailbound.simulator import Simulator
from servers.authority import Authority

LOGIN = b"USER bob\r\nPASS secret\r\n"
MAILS = [b"A: 1\r\n\r\none\r\n", b"A: 2\r\n\r\n.dot\r\ntwo\r\n", b"A: 3\r\n\r\nthree\r\nlines\r\nhere\r\n"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls") / "ca", ["pop.test"])


def with_mails(work, *contents, **options):
    async def run():
        async with Simulator(**options) as simulator:
            for content in contents:
                simulator.maildrop.put(content)
            return await work(simulator)

    return asyncio.run(run())


async def say(simulator, octets):
    """Send octets as they are, and return all that is said back until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", simulator.pop3_port)
    writer.write(octets)
    replies = await reader.read()
    writer.close()
    return replies


def exchange(octets, *contents):
    """Return what is said after the greeting and a login, and before the last reply; and what is left."""

    async def work(simulator):
        replies = await say(simulator, LOGIN + octets + b"QUIT\r\n")
        return replies, [content for _, content in simulator.maildrop.messages()]

    replies, left = with_mails(work, *contents)
    before = b"+OK relay.simulator.test mailbound simulator\r\n+OK\r\n+OK %d messages\r\n" % len(contents)
    assert replies.startswith(before)
    assert replies.endswith(b"+OK bye\r\n")
    return replies[len(before) : -len(b"+OK bye\r\n")], left


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        pytest.param(b"STAT\r\n", b"+OK 3 60\r\n", id="STAT"),
        pytest.param(b"LIST\r\n", b"+OK\r\n1 13\r\n2 19\r\n3 28\r\n.\r\n", id="LIST"),
        pytest.param(b"LIST 2\r\n", b"+OK 2 19\r\n", id="LIST of one"),
        pytest.param(b"UIDL\r\n", b"+OK\r\n1 00000001\r\n2 00000002\r\n3 00000003\r\n.\r\n", id="UIDL"),
        pytest.param(b"UIDL 3\r\n", b"+OK 3 00000003\r\n", id="UIDL of one"),
        pytest.param(b"RETR 2\r\n", b"+OK 19 octets\r\nA: 2\r\n\r\n..dot\r\ntwo\r\n.\r\n", id="RETR"),
        pytest.param(b"retr 1\r\n", b"+OK 13 octets\r\nA: 1\r\n\r\none\r\n.\r\n", id="lower case"),
        pytest.param(b"TOP 3 2\r\n", b"+OK\r\nA: 3\r\n\r\nthree\r\nlines\r\n.\r\n", id="TOP"),
        pytest.param(b"TOP 3 0\r\n", b"+OK\r\nA: 3\r\n\r\n.\r\n", id="TOP of no lines"),
        pytest.param(b"TOP 3 99\r\n", b"+OK\r\n" + MAILS[2] + b".\r\n", id="TOP of all"),
        pytest.param(b"DELE 1\r\nDELE 1\r\n", b"+OK\r\n-ERR no such message\r\n", id="DELE twice"),
        pytest.param(b"DELE 1\r\nSTAT\r\n", b"+OK\r\n+OK 2 47\r\n", id="STAT after DELE"),
        pytest.param(b"DELE 2\r\nLIST\r\n", b"+OK\r\n+OK\r\n1 13\r\n3 28\r\n.\r\n", id="numbers stay"),
        pytest.param(b"DELE 1\r\nRSET\r\nLIST 1\r\n", b"+OK\r\n+OK\r\n+OK 1 13\r\n", id="RSET"),
        pytest.param(b"RETR 4\r\n", b"-ERR no such message\r\n", id="RETR of none"),
        pytest.param(b"RETR 0\r\n", b"-ERR no such message\r\n", id="RETR of 0"),
        pytest.param(b"RETR -1\r\n", b"-ERR no such message\r\n", id="RETR of a negative"),
        pytest.param(b"RETR\r\n", b"-ERR no such message\r\n", id="RETR without a number"),
        pytest.param(b"NOOP\r\n", b"+OK\r\n", id="NOOP"),
        pytest.param(b"USER bob\r\n", b"-ERR that command may not stand here\r\n", id="USER again"),
        pytest.param(b"WHAT\r\n", b"-ERR that command may not stand here\r\n", id="not known"),
    ],
)
def test_a_command_is_answered_by(octets, expected):
    # The sizes count every octet, with CRLF and without stuffing (RFC 1939 §11).
    assert exchange(octets, *MAILS)[0] == expected


def test_what_is_deleted_goes_at_quit():
    assert exchange(b"DELE 1\r\nDELE 3\r\n", *MAILS)[1] == [MAILS[1]]


def test_nothing_goes_without_quit_and_the_lock_ends_with_the_connection():
    async def work(simulator):
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.pop3_port)
        writer.write(LOGIN + b"DELE 1\r\n")
        for _ in range(4):
            await reader.readline()
        busy = await say(simulator, LOGIN + b"QUIT\r\n")
        (conversation,) = simulator._connections
        writer.close()
        await conversation._ended.wait()
        free = await say(simulator, LOGIN + b"QUIT\r\n")
        return busy, free

    busy, free = with_mails(work, *MAILS)
    assert b"-ERR [IN-USE] " in busy
    assert b"+OK 3 messages" in free


def test_a_mail_that_falls_in_during_a_session_is_seen_in_the_next():
    async def work(simulator):
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.pop3_port)
        writer.write(LOGIN)
        for _ in range(3):
            await reader.readline()
        simulator.maildrop.put(MAILS[1])
        writer.write(b"STAT\r\nDELE 1\r\nQUIT\r\n")
        stat = await reader.readline()
        await reader.read()
        writer.close()
        return stat, len(simulator.maildrop)

    assert with_mails(work, MAILS[0]) == (b"+OK 1 13\r\n", 1)


def test_nothing_but_a_login_may_stand_at_the_beginning():
    replies = with_mails(lambda simulator: say(simulator, b"STAT\r\nPASS x\r\nQUIT\r\n"))
    assert replies.splitlines()[1:] == [
        b"-ERR that command may not stand here",
        b"-ERR USER comes first",
        b"+OK bye",
    ]


def test_a_client_that_does_not_read_is_not_written_to_without_end():
    mails = [b"A: %d\r\n\r\n" % number + b"x" * 200_000 + b"\r\n" for number in range(100)]

    async def work(simulator):
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.pop3_port, limit=1000)
        writer.write(LOGIN + b"".join(b"RETR %d\r\n" % number for number in range(1, 101)) + b"QUIT\r\n")
        await reader.readline()
        (conversation,) = simulator._connections
        most, read = 0, b""
        while octets := await reader.read(65_536):
            most = max(most, conversation.transport.get_write_buffer_size())
            read += octets
        writer.close()
        return most, read

    most, read = with_mails(work, *mails)
    assert most < 1_000_000
    assert all(mail in read for mail in mails)
    assert read.endswith(b"+OK bye\r\n")


@pytest.mark.parametrize("tls", ["none", "starttls", "implicit"])
def test_poplib_reads_and_deletes(authority, tls):
    async def work(simulator):
        def read():
            if tls == "implicit":
                client = poplib.POP3_SSL("127.0.0.1", simulator.pop3_port, context=authority.context())
            else:
                client = poplib.POP3("127.0.0.1", simulator.pop3_port)
            if tls == "starttls":
                client.stls(context=authority.context())
            client.user("bob")
            client.pass_("secret")
            capabilities = client.capa()
            lines = client.retr(2)[1]
            client.dele(2)
            client.quit()
            return capabilities, lines

        capabilities, lines = await asyncio.to_thread(read)
        return capabilities, lines, len(simulator.maildrop)

    secured = {"certificate": authority.certificate, "key": authority.key, "tls": tls}
    capabilities, lines, left = with_mails(work, *MAILS, **({} if tls == "none" else secured))
    assert {"TOP", "UIDL", "USER", "PIPELINING", "RESP-CODES"} <= set(capabilities)
    assert lines == [b"A: 2", b"", b".dot", b"two"]
    assert left == 2
