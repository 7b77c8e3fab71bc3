"""How a session is opened, and what is never said while it is not safe."""

import asyncio
import base64
import hashlib
import hmac
import ssl

import pytest

import scripted_relay
from mailbound import relay
from mailbound.model import Letter, Phase, Reply, Result
from servers.authority import Authority

LETTER = Letter(1, 1, "bounces@shop.example", "ann@example.net", "abc", b"Subject: x\r\n\r\nhello\r\n")
SECRET = "open sesame"
MAIL = "C: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\nS: 250 ok\n"


def account(port, *, host="127.0.0.1", tls="insecure", ehlo_name="me.example", **values):
    return relay.Account(host=host, port=port, tls=tls, ehlo_name=ehlo_name, **values)


def opened(script, *, context=None, implicit=None, send=False, **values):
    """Open a session with a relay that plays `script`, and perhaps send a letter; return both ends."""

    async def yes():
        return True

    async def main():
        async with scripted_relay.serve(script, context=context, tls=implicit) as server:
            session = await relay.open(account(server.port, **values))
            if send:
                outcome = await session.transact(LETTER, yes)
                assert outcome.result is Result.ACCEPTED
            session.close()
        return session, server

    return asyncio.run(main())


def refused(script, *, context=None, implicit=None, **values):
    """Fail to open a session; return the error and the relay."""

    async def main():
        async with scripted_relay.serve(script, context=context, tls=implicit) as server:
            server.part = b"\x16"  # how a TLS handshake begins
            with pytest.raises(relay.SessionError) as caught:
                await relay.open(account(server.port, **values))
        return caught.value, server

    return asyncio.run(main())


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls") / "ours", ["relay.example"])


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls") / "strange", ["localhost"])


def server_context(authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.certificate, authority.key)
    return context


# Connecting and greeting


@pytest.mark.parametrize(
    ("script", "phase", "reply"),
    [
        pytest.param(
            "S: 554 no service\nHANG", Phase.CONNECT, Reply(554, "no service"), id="554 as greeting"
        ),
        pytest.param("S: 421 too busy\nDROP", Phase.CONNECT, Reply(421, "too busy"), id="421 as greeting"),
        pytest.param("DROP", Phase.CONNECT, None, id="hangs up"),
        pytest.param("S: SSH-2.0-OpenSSH_9.2\nHANG", Phase.CONNECT, None, id="no relay"),
        pytest.param("S: 220 hi\nS: 250 unasked\nHANG", Phase.EHLO, None, id="a word too many"),
        pytest.param("S: 220 hi\nC: EHLO\nS: 421 bye\nDROP", Phase.EHLO, Reply(421, "bye"), id="421 to EHLO"),
        pytest.param(
            "S: 220 hi\nC: EHLO\nS: 450 wait\nHANG", Phase.EHLO, Reply(450, "wait"), id="450 to EHLO"
        ),
        pytest.param("S: 220 hi\nC: EHLO\nDROP", Phase.EHLO, None, id="hangs up at EHLO"),
        pytest.param(
            "S: 220 hi\nC: EHLO\nS: 502 no\nC: HELO\nS: 550 no\nHANG",
            Phase.EHLO,
            Reply(550, "no"),
            id="no HELO",
        ),
        pytest.param(
            "S: 220 hi\nC: EHLO\nS: 250 ok\nS: 250 more\nHANG", Phase.EHLO, None, id="two words too many"
        ),
        pytest.param("S: 220 hi\nC: EHLO\nS: 250-" + "x" * 40_000 + "\nHANG", Phase.EHLO, None, id="endless"),
    ],
)
def test_a_relay_that_does_not_answer_as_one_is_unreachable(script, phase, reply):
    error, server = refused(script)
    assert type(error) is relay.Unreachable
    assert (error.phase, error.reply) == (phase, reply)
    assert not error.permanent
    assert server.rest == b""


def test_a_port_where_nobody_listens_is_unreachable(unused_port):
    with pytest.raises(relay.Unreachable) as caught:
        asyncio.run(relay.open(account(unused_port)))
    assert caught.value.phase is Phase.CONNECT


def test_a_host_that_nobody_knows_is_unreachable_and_may_be_known_later():
    with pytest.raises(relay.Unreachable) as caught:
        asyncio.run(relay.open(account(25, host="relay.invalid")))
    assert caught.value.phase is Phase.CONNECT
    assert not caught.value.permanent


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound, but it does not listen
        yield listener.getsockname()[1]


def test_a_silent_relay_is_unreachable_at_the_deadline():
    error, _ = refused("HANG", deadlines=relay.Deadlines(connect=0.05))
    assert (type(error), error.phase) == (relay.Unreachable, Phase.CONNECT)


def test_no_connection_is_left_open_when_the_caller_is_cancelled():
    async def main():
        async with scripted_relay.serve("S: 220 hi\nC: EHLO\nHANG") as server:
            opening = asyncio.ensure_future(relay.open(account(server.port)))
            await scripted_relay.until(lambda: server.lines)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening

    asyncio.run(main())  # the relay's own end would fail the test if the client stayed


# EHLO


def test_the_name_of_ehlo_is_the_accounts():
    _, server = opened(scripted_relay.hello())
    assert server.lines == ["EHLO me.example"]


def test_without_a_name_ehlo_has_our_address():
    _, server = opened(scripted_relay.hello(), ehlo_name="")
    assert server.lines == ["EHLO [127.0.0.1]"]


@pytest.mark.parametrize("code", [500, 501, 502, 504, 550])
def test_a_relay_without_ehlo_gets_helo_and_no_parameters(code):
    _, server = opened(
        f"S: 220 hi\nC: EHLO\nS: {code} what\nC: HELO me.example\nS: 250-hi\nS: 250 DSN\n{MAIL}", send=True
    )
    assert server.lines[2:] == ["MAIL FROM:<bounces@shop.example>", "RCPT TO:<ann@example.net>", "DATA"]


def test_extensions_are_read():
    session, _ = opened(
        scripted_relay.hello("SIZE 1000", "dsn", "PIPELINING", "8BITMIME", "SmtpUtf8", "X-OTHER 1")
    )
    assert session.extensions == relay.Extensions(
        size=True, size_limit=1000, dsn=True, pipelining=True, eight_bit=True, utf8=True
    )


# TLS


def test_starttls_is_followed_by_a_new_ehlo_and_only_that_one_counts(authority):
    script = scripted_relay.hello("STARTTLS", "PIPELINING", "DSN", "SIZE 10") + (
        f"C: STARTTLS\nS: 220 go\nTLS\nC: EHLO me.example\nS: 250 relay.example\n{MAIL}"
    )
    session, server = opened(
        script, context=server_context(authority), tls="starttls", ca_file=str(authority.ca), send=True
    )
    assert session.extensions == relay.Extensions()
    assert server.lines[3:] == ["MAIL FROM:<bounces@shop.example>", "RCPT TO:<ann@example.net>", "DATA"]


def test_implicit_tls_carries_everything(authority):
    _, server = opened(
        scripted_relay.hello() + MAIL,
        implicit=server_context(authority),
        tls="implicit",
        ca_file=str(authority.ca),
        send=True,
    )
    assert server.bodies == [b"Subject: x\r\n\r\nhello\r\n.\r\n"]


def test_a_session_under_tls_ends_in_an_orderly_way(authority):
    async def main():
        script = scripted_relay.hello() + "C: QUIT\nS: 221 bye\n"
        async with scripted_relay.serve(script, tls=server_context(authority)) as server:
            session = await relay.open(account(server.port, tls="implicit", ca_file=str(authority.ca)))
            await session.quit()
        return session

    assert not asyncio.run(main()).usable


def test_words_injected_before_the_handshake_are_not_heard(authority):
    script = scripted_relay.hello("STARTTLS") + (
        "C: STARTTLS\nS: 220 go\nS: 250-evil\nS: 250 AUTH PLAIN\nTLS\nC: EHLO\nS: 250 relay.example\n" + MAIL
    )
    session, _ = opened(
        script, context=server_context(authority), tls="starttls", ca_file=str(authority.ca), send=True
    )
    assert session.extensions == relay.Extensions()


@pytest.mark.parametrize(
    ("script", "reply"),
    [
        (scripted_relay.hello("AUTH PLAIN LOGIN") + "HANG", None),
        ("S: 220 hi\nC: EHLO\nS: 502 no\nC: HELO\nS: 250 hi\nHANG", None),
        (
            scripted_relay.hello("STARTTLS", "AUTH PLAIN") + "C: STARTTLS\nS: 454 not now\nHANG",
            Reply(454, "not now"),
        ),
        (
            scripted_relay.hello("STARTTLS", "AUTH PLAIN") + "C: STARTTLS\nS: 500 what\nHANG",
            Reply(500, "what"),
        ),
    ],
    ids=["stripped", "helo only", "454", "500"],
)
def test_without_starttls_nothing_secret_is_said(script, reply):
    error, server = refused(script, tls="starttls", username="shop", password=SECRET)
    assert isinstance(error, relay.TlsFailed)
    assert (error.phase, error.reply) == (Phase.STARTTLS, reply)
    assert not any(line.startswith("AUTH") for line in server.lines)
    assert server.rest == b""


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize(
    "case", ["wrong host", "another authority", "authorities of the system", "plain text"]
)
def test_without_proof_of_who_it_is_nothing_secret_is_said(tls, case, authority, stranger):
    context = server_context(stranger if case == "another authority" else authority)
    values = {"tls": tls, "username": "shop", "password": SECRET, "ca_file": str(authority.ca)}
    if case == "wrong host":
        values["host"] = "localhost"
    if case == "authorities of the system":
        values["ca_file"] = ""
    if tls == "starttls":
        handshake = "PART\nS: this is no handshake" if case == "plain text" else "TLS"
        script = scripted_relay.hello("STARTTLS", "AUTH PLAIN") + f"C: STARTTLS\nS: 220 go\n{handshake}\nHANG"
        error, server = refused(script, context=context, **values)
    elif case == "plain text":
        error, server = refused("S: 220 relay.example\nHANG", **values)
    else:
        error, server = refused(scripted_relay.hello("AUTH PLAIN") + "HANG", implicit=context, **values)
    assert isinstance(error, relay.TlsFailed)
    assert not any(line.startswith("AUTH") for line in server.lines)
    assert base64.b64encode(SECRET.encode()) not in server.rest


# AUTH


def auth(offer, steps, **values):
    return opened(scripted_relay.hello(offer) + steps, username="shop", password=SECRET, **values)


def test_plain():
    _, server = auth("AUTH LOGIN PLAIN CRAM-MD5", "C: AUTH PLAIN\nS: 235 welcome\n")
    assert server.lines[1] == "AUTH PLAIN " + base64.b64encode(f"\0shop\0{SECRET}".encode()).decode()


def test_login():
    _, server = auth("AUTH LOGIN", "C: AUTH LOGIN\nS: 334 UGFzc3dvcmQ6\nC: \nS: 235 welcome\n")
    assert [base64.b64decode(line.split()[-1]).decode() for line in server.lines[1:]] == ["shop", SECRET]


def test_cram_md5_says_no_password():
    challenge = base64.b64encode(b"<1@relay>").decode()
    _, server = auth("AUTH CRAM-MD5", f"C: AUTH CRAM-MD5\nS: 334 {challenge}\nC: \nS: 235 welcome\n")
    digest = hmac.new(SECRET.encode(), b"<1@relay>", hashlib.md5).hexdigest()
    assert base64.b64decode(server.lines[2]).decode() == f"shop {digest}"


def test_a_token_means_xoauth2():
    async def token():
        return "t0ken"

    _, server = auth("AUTH PLAIN XOAUTH2", "C: AUTH XOAUTH2\nS: 235 welcome\n", token=token)
    assert base64.b64decode(server.lines[1].split()[-1]) == b"user=shop\x01auth=Bearer t0ken\x01\x01"


def test_the_account_may_choose_its_mechanisms():
    _, server = auth(
        "AUTH PLAIN LOGIN", "C: AUTH LOGIN\nS: 334 x\nC: \nS: 235 welcome\n", mechanisms=("LOGIN",)
    )
    assert server.lines[1].startswith("AUTH LOGIN ")


@pytest.mark.parametrize(
    ("code", "kind", "permanent"),
    [
        (535, relay.AuthRefused, True),
        (534, relay.AuthRefused, True),
        (504, relay.AuthRefused, True),
        (454, relay.AuthRefused, False),
        (421, relay.Unreachable, False),
        (250, relay.Unreachable, False),
    ],
)
def test_a_refused_password_is_tried_once(code, kind, permanent):
    script = scripted_relay.hello("AUTH CRAM-MD5 PLAIN LOGIN") + f"C: AUTH PLAIN\nS: {code} no\nHANG"
    error, server = refused(script, username="shop", password=SECRET)
    assert type(error) is kind
    assert (error.phase, error.permanent) == (Phase.AUTH, permanent)
    assert error.reply == Reply(code, "no")
    assert server.rest == b""
    assert SECRET not in str(error)


def test_a_refused_token_is_a_refusal_after_the_empty_answer():
    async def token():
        return "expired"

    script = scripted_relay.hello("AUTH XOAUTH2") + "C: AUTH XOAUTH2\nS: 334 eyJz\nC: \nS: 535 5.7.8 no\nHANG"
    error, _ = refused(script, username="shop", token=token)
    assert (type(error), error.permanent, error.reply) == (relay.AuthRefused, True, Reply(535, "5.7.8 no"))


@pytest.mark.parametrize(
    ("offer", "why"),
    [("AUTH NTLM GSSAPI", "AUTH NTLM GSSAPI, and none of PLAIN, LOGIN"), ("DSN", "AUTH with nothing")],
)
def test_no_common_mechanism_is_for_a_person_to_mend(offer, why):
    error, server = refused(scripted_relay.hello(offer) + "HANG", username="shop", password=SECRET)
    assert (type(error), error.permanent) == (relay.AuthRefused, True)
    assert why in str(error)
    assert server.rest == b""


@pytest.mark.parametrize("fault", [OSError("no such command"), ValueError("empty"), None], ids=str)
def test_without_a_token_nothing_is_said(fault):
    async def token():
        if fault:
            raise fault
        await asyncio.Event().wait()

    script = scripted_relay.hello("AUTH XOAUTH2") + "HANG"
    error, server = refused(script, username="shop", token=token, deadlines=relay.Deadlines(auth=0.02))
    assert (type(error), error.phase) == (relay.Unreachable, Phase.AUTH)
    assert server.rest == b""


def test_no_secret_is_shown():
    assert SECRET not in repr(account(25, username="shop", password=SECRET))
