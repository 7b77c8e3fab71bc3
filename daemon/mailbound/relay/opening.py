"""How a session is opened: aiosmtplib speaks until the transactions begin.

One mechanism and one attempt of AUTH for each connection: some relays lock an account after a few wrong
passwords.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import aiosmtplib

from mailbound.errors import MailboundError
from mailbound.model import Phase, Reply
from mailbound.relay import commands, replies
from mailbound.relay.account import Account
from mailbound.relay.connection import Connection
from mailbound.relay.failures import AuthRefused, SessionError, TlsFailed, Unreachable
from mailbound.relay.session import Session


async def open(account: Account, context: ssl.SSLContext | None = None) -> Session:  # noqa: A001
    """Return a session with the relay of `account`, ready for its first letter.

    `context` is what `account.context()` returned, for callers that open many. Raises Unreachable, TlsFailed
    or AuthRefused, and has closed the connection then.
    """
    if context is None:
        context = await asyncio.to_thread(account.context)
    client = aiosmtplib.SMTP(
        hostname=account.host,
        port=account.port,
        use_tls=account.tls == "implicit",
        start_tls=False,  # else it would do so if it felt like it
        tls_context=context,
        local_hostname=account.ehlo_name or "localhost",  # else it asks the DNS; `_hello` passes the real one
    )
    try:
        await _introduce(client, account)
        return _taken_over(client, account)
    except BaseException:
        if client.transport is not None and not client.transport.is_closing():
            _plain(client.transport).abort()
        client.close()
        raise


async def _introduce(client: aiosmtplib.SMTP, account: Account) -> None:
    """Bring `client` to where MAIL is welcome."""
    with _failures(Phase.CONNECT):
        await client.connect(timeout=account.deadlines.connect)
    await _hello(client, account)
    if account.tls == "starttls":
        await _start_tls(client, account)
        await _hello(client, account)  # what was said in clear counts no more (RFC 3207 §4.2)
    if account.username:
        await _authenticate(client, account)


async def _hello(client: aiosmtplib.SMTP, account: Account) -> None:
    _demand_silence(client, Phase.EHLO)
    name = account.ehlo_name or _address_literal(client)
    with _failures(Phase.EHLO):
        try:
            await client.ehlo(hostname=name, timeout=account.deadlines.hello)
        except aiosmtplib.SMTPHeloError as error:
            if error.code // 100 != 5:
                raise
            await client.helo(hostname=name, timeout=account.deadlines.hello)  # RFC 5321 §3.2


async def _start_tls(client: aiosmtplib.SMTP, account: Account) -> None:
    _demand_silence(client, Phase.STARTTLS)
    if not client.supports_extension("starttls"):
        raise TlsFailed(Phase.STARTTLS, "the relay does not offer STARTTLS, and TLS is required")
    with _failures(Phase.STARTTLS, TlsFailed):
        await client.starttls(timeout=account.deadlines.starttls)


async def _authenticate(client: aiosmtplib.SMTP, account: Account) -> None:
    _demand_silence(client, Phase.AUTH)
    seconds = account.deadlines.auth
    wanted = ("XOAUTH2",) if account.token else account.mechanisms
    offered = client.server_auth_methods
    mechanism = next((name for name in wanted if name.lower() in offered), None)
    if mechanism is None:
        names = " ".join(offered).upper() or "with nothing"
        why = f"the relay offers AUTH {names}, and none of {', '.join(wanted)}"
        raise AuthRefused(Phase.AUTH, why)
    secret = await _fresh(account.token, seconds) if account.token else account.password
    say = {
        "PLAIN": client.auth_plain,
        "LOGIN": client.auth_login,
        "CRAM-MD5": client.auth_crammd5,
        "XOAUTH2": client.auth_xoauth2,
    }[mechanism]
    with _failures(Phase.AUTH, AuthRefused):
        await say(account.username, secret, timeout=seconds)


async def _fresh(token: Callable[[], Awaitable[str]], seconds: float) -> str:
    try:
        async with asyncio.timeout(seconds):
            return await token()
    except (OSError, ValueError, MailboundError) as error:
        why = f"there is no access token: {str(error) or 'its command takes too long'}"
        raise Unreachable(Phase.AUTH, why) from error  # nothing was refused: it is tried again soon


def _taken_over(client: aiosmtplib.SMTP, account: Account) -> Session:
    """Return a session on the transport of `client`, which is not used any more."""
    _demand_silence(client, Phase.EHLO)
    transport = client.transport
    if transport is None or transport.is_closing():
        raise Unreachable(Phase.EHLO, "the relay closed the connection")
    extensions = commands.Extensions.read(client.esmtp_extensions)
    connection = Connection(_plain(transport))
    return Session(connection, extensions, account.deadlines, authenticated=bool(account.username))


def _demand_silence(client: aiosmtplib.SMTP, phase: Phase) -> None:
    """Raise Unreachable if the relay spoke unasked: its next reply would answer the wrong command."""
    # There is no public way to see it.
    if getattr(client.protocol, "_buffer", b""):
        raise Unreachable(phase, "the relay said more than it was asked")


def _address_literal(client: aiosmtplib.SMTP) -> str:
    """Return our own end of the connection as an address literal (RFC 5321 §4.1.3)."""
    with _failures(Phase.EHLO):
        host = client.get_transport_info("sockname")[0].partition("%")[0]  # without the zone of a link
    return f"[IPv6:{host}]" if ipaddress.ip_address(host).version == 6 else f"[{host}]"


def _plain(transport: asyncio.BaseTransport) -> asyncio.Transport:
    # uvloop's transports do not derive from asyncio's, so only a cast would be honest to both.
    return transport  # type: ignore[return-value]


@contextmanager
def _failures(phase: Phase, refusal: type[SessionError] = Unreachable) -> Iterator[None]:
    """Turn what aiosmtplib and sockets raise into one of ours: `refusal` for a reply that says no."""
    try:
        yield
    except aiosmtplib.SMTPResponseException as error:
        raise _refused(phase, error, refusal) from error
    except (aiosmtplib.SMTPException, OSError) as error:
        tls = isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError)
        failure = TlsFailed if tls else Unreachable
        raise failure(phase, str(error) or type(error).__name__) from error


def _refused(
    phase: Phase, error: aiosmtplib.SMTPResponseException, refusal: type[SessionError]
) -> SessionError:
    if error.code // 100 not in (4, 5) or error.code == 421:
        refusal = Unreachable  # it is no answer to the question
    if error.code < 0:  # aiosmtplib's word for a reply that cannot be read
        return refusal(phase, replies.readable(error.message.encode("utf-8", "replace")))
    lines = error.message.encode("utf-8", "surrogateescape").split(b"\n")
    reply = Reply(error.code, "\n".join(map(replies.readable, lines)))
    return refusal(phase, f"the relay said {reply}", reply)
