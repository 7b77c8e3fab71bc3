"""The simulated relay, octet by octet and with real clients."""

import asyncio
import base64
import itertools
import smtplib
import ssl

import aiosmtplib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailbound.simulator import Simulator, serve
from mailbound.simulator.envelope import decode_xtext
from servers.authority import Authority

MAIL = b"Message-ID: <1@example.com>\r\nSubject: test\r\n\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls") / "ca", ["relay.test"])


def with_simulator(work, **options):
    """Return what `work` returns for a simulator that answers at once."""

    async def run():
        async with Simulator(**{"delay_seconds": 0} | options) as simulator:
            return await work(simulator)

    return asyncio.run(run())


async def say(simulator, *chunks):
    """Send octets as they are, and return all that is said back until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", simulator.smtp_port)
    for chunk in chunks:
        writer.write(chunk)
        await writer.drain()
        await asyncio.sleep(0)
    replies = await reader.read()
    writer.close()
    return replies.decode()


def codes(replies):
    """Return the code of each reply, without the lines that go on."""
    return [line[:3] for line in replies.splitlines() if line[3] == " "]


def exchange(octets, **options):
    """Return the codes that the relay answers to `octets`, and the messages that it took."""

    async def work(simulator):
        replies = await say(simulator, octets)
        return codes(replies), list(simulator.messages)

    return with_simulator(work, **options)


def transaction(recipient="bob@example.com", content=MAIL, sender="bounces+tok@example.net"):
    return f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode() + content + b".\r\n"


EHLO, QUIT = b"EHLO client.test\r\n", b"QUIT\r\n"


# The session


def test_the_greeting_and_the_extensions():
    replies = with_simulator(lambda simulator: say(simulator, EHLO + QUIT))
    assert replies.startswith("220 relay.simulator.test ESMTP")
    offered = {line[4:].strip() for line in replies.splitlines() if line.startswith("250")}
    assert {"PIPELINING", "SIZE 26214400", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN"} <= offered
    assert "AUTH PLAIN LOGIN XOAUTH2" in offered
    assert "STARTTLS" not in offered


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        pytest.param(b"MAIL FROM:<a@b>\r\n", "503", id="MAIL before EHLO"),
        pytest.param(EHLO + b"RCPT TO:<a@b>\r\n", "503", id="RCPT before MAIL"),
        pytest.param(EHLO + b"DATA\r\n", "503", id="DATA before MAIL"),
        pytest.param(EHLO + b"MAIL FROM:<a@b>\r\nDATA\r\n", "554", id="DATA before RCPT"),
        pytest.param(EHLO + b"MAIL FROM:<a@b>\r\nMAIL FROM:<a@b>\r\n", "503", id="MAIL twice"),
        pytest.param(EHLO + b"MAIL FROM:<a@b>\r\nRSET\r\nRCPT TO:<a@b>\r\n", "503", id="RSET forgets"),
        pytest.param(EHLO + b"MAIL FROM:<a@b>\r\n" + EHLO + b"RCPT TO:<a@b>\r\n", "503", id="EHLO forgets"),
        pytest.param(EHLO + b"MAIL TO:<a@b>\r\n", "501", id="MAIL TO"),
        pytest.param(EHLO + b"MAIL FROM:a@b\r\n", "501", id="no brackets"),
        pytest.param(EHLO + b"mail from: <a@b>\r\n", "250", id="lower case, a space"),
        pytest.param(EHLO + b"MAIL FROM:<>\r\n", "250", id="null sender"),
        pytest.param(EHLO + b'MAIL FROM:<"a b>"@b>\r\n', "250", id="quoted local part"),
        pytest.param(EHLO + b"MAIL FROM:<a@b> SIZE=26214400\r\n", "250", id="size at the limit"),
        pytest.param(EHLO + b"MAIL FROM:<a@b> SIZE=26214401\r\n", "552", id="size over the limit"),
        pytest.param(EHLO + b"MAIL FROM:<a@b> SIZE=x\r\n", "501", id="size that is none"),
        pytest.param(
            EHLO + b"MAIL FROM:<a@b> BODY=8BITMIME SMTPUTF8 AUTH=<>\r\n", "250", id="BODY and so on"
        ),
        pytest.param(EHLO + b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n", "501", id="a body that we do not take"),
        pytest.param(EHLO + b"MAIL FROM:<a@b> RET=HDRS ENVID=a+2Bb\r\n", "250", id="DSN"),
        pytest.param(EHLO + b"MAIL FROM:<a@b> RET=SOME\r\n", "501", id="RET that is none"),
        pytest.param(EHLO + b"MAIL FROM:<a@b> RET=HDRS RET=FULL\r\n", "501", id="RET twice"),
        pytest.param(EHLO + b"MAIL FROM:<a@b> ENVID=a+b\r\n", "501", id="ENVID that is no xtext"),
        pytest.param(EHLO + b"MAIL FROM:<a@b> HOLDUNTIL=5\r\n", "555", id="a parameter not offered"),
        pytest.param(EHLO + "MAIL FROM:<ä@b>\r\n".encode(), "553", id="UTF-8 without SMTPUTF8"),
        pytest.param(EHLO + "MAIL FROM:<ä@b> SMTPUTF8\r\n".encode(), "250", id="UTF-8"),
        pytest.param(EHLO + b"NOOP\r\n", "250", id="NOOP"),
        pytest.param(EHLO + b"VRFY bob\r\n", "252", id="VRFY"),
        pytest.param(EHLO + b"EXPN bob\r\n", "500", id="not known"),
        pytest.param(EHLO + b"\r\n", "500", id="nothing"),
        pytest.param(EHLO + b"\xff\xfe\r\n", "500", id="no text"),
        pytest.param(b"EHLO\r\n", "501", id="EHLO without a name"),
        pytest.param(b"HELO client.test\r\n", "250", id="HELO"),
        pytest.param(EHLO + b"STARTTLS\r\n", "502", id="STARTTLS without a certificate"),
    ],
)
def test_the_last_command_is_answered_by(octets, expected):
    replies, _ = exchange(octets + QUIT)
    assert replies[-2:] == [expected, "221"]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("", "250"),
        (" NOTIFY=NEVER", "250"),
        (" NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;a+2Bb@c", "250"),
        (" notify=failure orcpt=RFC822;x", "250"),
        (" NOTIFY=NEVER,DELAY", "501"),
        (" NOTIFY=SOMETIMES", "501"),
        (" NOTIFY=", "501"),
        (" NOTIFY=DELAY NOTIFY=DELAY", "501"),
        (" ORCPT=a+b@c", "501"),
        (" ORCPT=nothing", "501"),
        (" WHAT=1", "555"),
    ],
)
def test_a_recipient_with_parameters_is_answered_by(parameters, expected):
    rcpt = f"MAIL FROM:<a@b>\r\nRCPT TO:<bob@example.com>{parameters}\r\n".encode()
    assert exchange(EHLO + rcpt + QUIT)[0][-2:] == [expected, "221"]


def test_an_endless_line_ends_the_connection():
    assert exchange(b"x" * 20_000)[0] == ["220"]


def test_connections_may_be_refused():
    assert exchange(b"", refuse_connections=True)[0] == ["421"]


def test_421_ends_the_connection():
    octets = EHLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<refuse+421-4.3.2@example.com>\r\nNOOP\r\n"
    assert exchange(octets)[0] == ["220", "250", "250", "421"]


# The message


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        pytest.param(b"A: 1\r\n\r\nx\r\n", b"A: 1\r\n\r\nx\r\n", id="plain"),
        pytest.param(b"", b"", id="empty"),
        pytest.param(b"..\r\n", b".\r\n", id="a dot"),
        pytest.param(b"..x\r\n...\r\n..\r\n", b".x\r\n..\r\n.\r\n", id="dots"),
        pytest.param(b"A: 1\n.\n\r\n", b"A: 1\n.\n\r\n", id="a bare LF ends nothing"),
        pytest.param(b"A: 1\n.\r\nQUIT\r\n", b"A: 1\n.\r\nQUIT\r\n", id="half a bare end"),
        pytest.param(b"A: 1\r.\r\r\n", b"A: 1\r.\r\r\n", id="a bare CR ends nothing"),
        pytest.param(b"\r\n", b"\r\n", id="an empty line"),
    ],
)
def test_the_dots_of_a_message_are_unstuffed(sent, taken):
    replies, messages = exchange(EHLO + transaction(content=sent) + QUIT)
    assert replies[-3:] == ["354", "250", "221"]
    assert [message.content for message in messages] == [taken]


@settings(max_examples=40, deadline=None)
@given(
    contents=st.lists(st.lists(st.sampled_from([b".", b"..", b"", b"a", b".a", b"\n.", b"\r."])), max_size=3),
    cuts=st.lists(st.integers(1, 400)),
)
def test_a_session_is_the_same_however_it_is_cut(contents, cuts):
    stuffed = [
        b"".join(b"." * line.startswith(b".") + line + b"\r\n" for line in lines) for lines in contents
    ]
    octets = EHLO + b"".join(transaction(content=content) for content in stuffed) + QUIT
    places = [0, *sorted({cut for cut in cuts if cut < len(octets)}), len(octets)]
    chunks = [octets[begin:end] for begin, end in itertools.pairwise(places)]

    async def work(simulator):
        return codes(await say(simulator, *chunks)), [message.content for message in simulator.messages]

    replies, taken = with_simulator(work)
    assert replies == ["220", "250", *["250", "250", "354", "250"] * len(contents), "221"]
    assert taken == [b"".join(line + b"\r\n" for line in lines) for lines in contents]


def test_what_the_envelope_said_is_kept():
    octets = (
        EHLO + b"MAIL FROM:<bounces+tok@example.net> RET=HDRS ENVID=e+3D1 BODY=8BITMIME\r\n"
        b"RCPT TO:<bob@example.com> NOTIFY=FAILURE,DELAY ORCPT=rfc822;bob+2Bx@example.com\r\n"
        b"RCPT TO:<eve@example.com> NOTIFY=NEVER\r\n"
        b"RCPT TO:<kim@example.com>\r\n"
        b"DATA\r\n" + MAIL + b".\r\n" + QUIT
    )
    _, (message,) = exchange(octets)
    assert (message.sender, message.ret, message.envid) == ("bounces+tok@example.net", "HDRS", "e=1")
    bob, eve, kim = message.recipients
    assert (bob.notify, bob.original) == ({"FAILURE", "DELAY"}, "rfc822;bob+x@example.com")
    assert (eve.notify, kim.notify) == (frozenset(), None)
    assert message.header == b"Message-ID: <1@example.com>\r\nSubject: test\r\n"


def test_a_message_that_is_too_large_is_refused_and_the_session_goes_on():
    large = transaction(content=b"x" * 40 + b"\r\n" + b"yyyy\r\n" * 200)
    replies, messages = exchange(EHLO + large + transaction() + QUIT, size_limit_octets=100)
    assert replies[-6:] == ["552", "250", "250", "354", "250", "221"]
    assert [message.content for message in messages] == [MAIL]


def test_a_message_that_is_far_too_large_is_not_held_in_memory():
    async def work(simulator):
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.smtp_port)
        writer.write(EHLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n")
        most = 0
        for _ in range(100):
            writer.write(b"\r\n" + b"x" * 100_000)
            await writer.drain()
            most = max(most, *(len(one._buffer) for one in simulator._connections))
        writer.write(b"\r\n.\r\n" + QUIT)
        replies = await reader.read()
        writer.close()
        return most, codes(replies.decode())

    most, replies = with_simulator(work, size_limit_octets=1000)
    assert most < 1_000_000
    assert replies[-2:] == ["552", "221"]


def test_only_the_last_messages_are_kept_and_all_are_counted():
    async def work(simulator):
        await say(simulator, EHLO + transaction() * 5 + QUIT)
        return simulator.accepted, len(simulator.messages)

    assert with_simulator(work, keep=2) == (5, 2)


def test_the_ledger_has_a_message_before_its_reply_goes_out():
    ledger = []

    async def work(simulator):
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.smtp_port)
        writer.write(EHLO + transaction())
        await reader.readuntil(b"queued as")
        taken = [message.sender for message in ledger]
        writer.close()
        return taken

    assert with_simulator(work, on_accept=ledger.append) == ["bounces+tok@example.net"]


# Recipients


def test_refusals_in_a_group_are_answered_one_to_one():
    octets = (
        EHLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<refuse+550-5.1.1@x.test>\r\nRCPT TO:<bob@x.test>\r\n"
        b"RCPT TO:<refuse+4.2.2@x.test>\r\nDATA\r\n" + MAIL + b".\r\n" + QUIT
    )
    replies, (message,) = exchange(octets)
    assert replies[2:] == ["250", "550", "250", "452", "354", "250", "221"]
    assert [recipient.address for recipient in message.recipients] == ["bob@x.test"]


def test_a_refusal_has_a_text_with_the_address():
    octets = EHLO + b"MAIL FROM:<a@b>\r\nRCPT TO:<refuse@x.test>\r\n" + QUIT
    replies = with_simulator(lambda simulator: say(simulator, octets))
    assert "550 5.1.1 <refuse@x.test>: " in replies


def test_greylisting_takes_the_second_attempt_of_the_same_sender_and_recipient():
    async def work(simulator):
        def attempt(token, recipient):
            return (
                transaction(recipient, sender=f"bounces+{token}@example.net").split(b"DATA")[0] + b"RSET\r\n"
            )

        octets = EHLO + attempt("one", "greylist@x.test") + attempt("two", "greylist-2@x.test")
        return codes(await say(simulator, octets + attempt("three", "Greylist@x.test") + QUIT))

    rcpts = with_simulator(work)[3::3]
    assert rcpts == ["450", "450", "250"]


@pytest.mark.parametrize(
    ("recipient", "accepted"), [("drop@x.test", 0), ("unknown@x.test", 1), ("bob@x.test", 1)]
)
def test_a_connection_may_end_instead_of_the_last_reply(recipient, accepted):
    replies, messages = exchange(EHLO + transaction(recipient) + QUIT)
    assert replies == ["220", "250", "250", "250", "354", *(["250", "221"] if recipient[0] == "b" else [])]
    assert len(messages) == accepted


def test_a_share_of_the_last_replies_may_be_lost():
    replies, messages = exchange(EHLO + transaction() + QUIT, fail_final=1)
    assert (replies[-1], len(messages)) == ("354", 1)


def test_spam_is_refused_at_the_final_dot():
    async def work(simulator):
        replies = await say(simulator, EHLO + transaction("spam@x.test") + QUIT)
        return codes(replies)[-2:], simulator.accepted, simulator.refused

    assert with_simulator(work) == (["554", "221"], 0, 1)


@pytest.mark.parametrize("options", [{"latency_seconds": 0.001, "slow_seconds": 0}, {"slow_seconds": 0.001}])
def test_slow_replies_come_in_order(options):
    replies, messages = exchange(EHLO + transaction("slow@x.test") * 3 + QUIT, **options)
    assert replies == ["220", "250", *["250", "250", "354", "250"] * 3, "221"]
    assert len(messages) == 3


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"bounce_rate": 1.1}, "bounce_rate"), ({"fail_final": -1}, "fail_final"), ({"form": "pine"}, "form")],
)
def test_a_simulator_that_cannot_be_is_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        Simulator(**options)


def test_a_taken_port_is_an_error_and_leaves_nothing_open():
    async def work(simulator):
        other = Simulator(pop3_port=simulator.smtp_port)
        with pytest.raises(OSError, match="in use"):
            await other.start()
        return other._servers

    assert with_simulator(work) == []


# AUTH


def encoded(text):
    return base64.b64encode(text.encode())


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param([b"AUTH PLAIN " + encoded("\0bob\0secret")], id="PLAIN at once"),
        pytest.param([b"AUTH PLAIN", encoded("\0bob\0secret")], id="PLAIN in two steps"),
        pytest.param([b"AUTH LOGIN", encoded("bob"), encoded("secret")], id="LOGIN"),
        pytest.param([b"AUTH LOGIN " + encoded("bob"), encoded("secret")], id="LOGIN at once"),
        pytest.param([b"AUTH XOAUTH2 " + encoded("user=bob\1auth=Bearer t\1\1")], id="XOAUTH2"),
    ],
)
def test_anybody_may_log_in(octets):
    replies, (message,) = exchange(EHLO + b"\r\n".join(octets) + b"\r\n" + transaction() + QUIT)
    assert "235" in replies
    assert message.user == "bob"


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"AUTH CRAM-MD5\r\n", "504"),
        (b"AUTH PLAIN !!!\r\n", "501"),
        (b"AUTH PLAIN " + encoded("bob") + b"\r\n", "501"),
        (b"AUTH PLAIN\r\n*\r\n", "501"),
        (b"MAIL FROM:<a@b>\r\nAUTH PLAIN\r\n", "503"),
    ],
)
def test_a_login_that_is_none_is_refused(octets, expected):
    assert exchange(EHLO + octets + QUIT)[0][-2:] == [expected, "221"]


# Real clients


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_smtplib_sends_under_tls(authority, tls):
    async def work(simulator):
        def send():
            context = authority.context()
            if tls == "implicit":
                client = smtplib.SMTP_SSL("127.0.0.1", simulator.smtp_port, context=context)
            else:
                client = smtplib.SMTP("127.0.0.1", simulator.smtp_port)
                client.starttls(context=context)
            with client:
                client.login("bob", "secret")
                return client.sendmail("a@example.net", ["bob@example.com"], MAIL)

        assert await asyncio.to_thread(send) == {}
        return simulator.messages[0]

    message = with_simulator(work, certificate=authority.certificate, key=authority.key, tls=tls)
    assert (message.secure, message.user, message.content) == (True, "bob", MAIL)


def test_what_came_ahead_of_tls_is_not_heard(authority):
    async def work(simulator):
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.smtp_port)
        writer.write(EHLO + b"STARTTLS\r\nMAIL FROM:<injected@b>\r\n")
        await reader.readuntil(b"220 2.0.0 Ready to start TLS\r\n")
        await writer.start_tls(authority.context(), server_hostname="relay.test")
        writer.write(EHLO + b"RCPT TO:<bob@example.com>\r\n" + QUIT)
        replies = codes((await reader.read()).decode())
        writer.close()
        return replies

    assert with_simulator(work, certificate=authority.certificate, key=authority.key) == ["250", "503", "221"]


def test_a_client_that_breaks_off_the_handshake_is_forgotten(authority):
    async def work(simulator):
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.smtp_port)
        writer.write(EHLO + b"STARTTLS\r\n")
        await reader.readuntil(b"220 2.0.0 Ready to start TLS\r\n")
        with pytest.raises(ssl.SSLError):
            await writer.start_tls(ssl.create_default_context(), server_hostname="relay.test")
        (conversation,) = simulator._connections
        await conversation._ended.wait()
        writer.close()
        return simulator._connections

    assert with_simulator(work, certificate=authority.certificate, key=authority.key) == set()


def test_aiosmtplib_sends_many_mails_over_one_connection():
    async def work(simulator):
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=simulator.smtp_port, start_tls=False)
        async with client:
            for number in range(20):
                await client.sendmail("a@example.net", [f"p{number}@example.com"], MAIL)
        return simulator.accepted

    assert with_simulator(work) == 20


def test_stopping_ends_open_connections():
    async def run():
        simulator = Simulator()
        await simulator.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.smtp_port)
        await reader.readline()
        await simulator.stop()
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    assert asyncio.run(run()) == b""


@given(st.text(st.characters(max_codepoint=255)))
def test_xtext_comes_back(text):
    xtext = "".join(
        letter if "!" <= letter <= "~" and letter not in "+=" else f"+{ord(letter):02X}" for letter in text
    )
    assert decode_xtext(xtext) == text


@pytest.mark.parametrize("text", ["a b", "a=b", "a+b", "a+2", "a+2b", "ä"])
def test_what_is_no_xtext_is_none(text):
    assert decode_xtext(text) is None


def test_serving_goes_on_until_it_is_cancelled():
    async def run():
        started = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(Simulator(), started.set_result))
        simulator = await started
        replies = codes(await say(simulator, EHLO + transaction() + QUIT))
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        with pytest.raises(ConnectionRefusedError):
            await say(simulator, QUIT)
        return replies

    assert asyncio.run(run())[-1] == "221"
