"""aioimaplib, made fit for servers that are slow, broken or hostile.

What differs from aioimaplib: what arrives is handed to it in small pieces, since it calls itself for each line;
every reply has a deadline and a limit; a connection that is lost fails what waits for it, IDLE too; a `BYE` is
remembered; news of new mail is never overheard; a SASL response goes out when the server asks for it, and is not
logged. After any trouble the connection is dropped.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import aioimaplib
from aioimaplib.aioimaplib import AUTH, CONNECTED, NONAUTH, SELECTED, Command, FetchCommand, IdleCommand

from mailbound.mailbox import SessionError, Trouble, unreachable
from mailbound.mailbox.imap import replies

_CONNECT_SECONDS = 20.0
_MAX_REPLY_OCTETS = (
    67_108_864  # what a reply may have besides the mails that it brings; a million uids have 8 MiB
)
_LINES_AT_ONCE = 100  # the stack of aioimaplib grows with each line that came together with others
# What arrives buys a little time, so that a large mail gets its minutes and a dripping server does not.
_MIN_OCTETS_PER_SECOND = 4096
_NEWS = re.compile(rb"\* \d+ (?:EXISTS|RECENT)\b", re.IGNORECASE)
_BYE = re.compile(rb"\* BYE\b ?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that is complete: what the tagged line says, and the lines before it, literals as bytearray."""

    result: str  # OK or NO
    text: str
    lines: list[Any]  # the text is the last of them

    @property
    def ok(self) -> bool:
        """Return whether the server did what it was told."""
        return self.result == "OK"


class Connection(aioimaplib.IMAP4ClientProtocol):  # type: ignore[misc]  # it has no types
    """A connection, for one task. Whatever goes wrong raises SessionError, and is the end of it."""

    def __init__(self, timeout_seconds: float) -> None:
        """Prepare a connection, which begins with `open`."""
        super().__init__(asyncio.get_running_loop())
        self.idle_queue: asyncio.Queue[Any]
        self.news = asyncio.Event()
        """Set when the server has told of mail; to be cleared before one looks."""
        self._timeout_seconds = timeout_seconds
        self._greeting: asyncio.Future[bytes] = self.loop.create_future()
        self._lost: asyncio.Future[SessionError] = self.loop.create_future()
        self._response = b""  # to the server's first challenge
        self._unended: list[bytes] = []  # a line without its end
        self._due = 0.0
        self._allowed_octets = _MAX_REPLY_OCTETS

    # What a session is made of

    async def open(self, host: str, port: int, context: ssl.SSLContext | None) -> str:
        """Connect, under TLS if there is a `context`, and return the greeting."""
        seconds = min(self._timeout_seconds, _CONNECT_SECONDS)
        opening = asyncio.ensure_future(
            self.loop.create_connection(
                lambda: self, host, port, ssl=context, server_hostname=host if context else None
            )
        )
        try:
            await asyncio.wait({opening}, timeout=seconds)
            if not opening.done():
                raise SessionError(Trouble.NETWORK, f"no connection within {seconds:g} seconds")
            opening.result()
        except ssl.SSLError as error:
            raise SessionError(Trouble.TLS, f"TLS failed: {error}") from error
        except OSError as error:
            raise unreachable(error) from error
        finally:
            opening.cancel()
        await self._answered(self._greeting)
        return replies.readable(self._greeting.result())

    async def command(
        self, name: str, *arguments: str, uid: bool = False, octets: int = 0, answers: str | None = None
    ) -> Reply:
        """Give a command and return the reply, be it OK or NO. One that is not understood is trouble.

        `octets` are those of the mails that may come; `answers` is how the untagged responses are called, if
        not as the command.
        """
        prefix = "UID" if uid else None
        if name == "FETCH":
            command = FetchCommand(self.new_tag(), *arguments, prefix=prefix, loop=self.loop)
        else:
            command = Command(
                name, self.new_tag(), *arguments, prefix=prefix, untagged_resp_name=answers, loop=self.loop
            )
        return await self._run(command, octets)

    async def authenticate(self, mechanism: str, response: bytes) -> Reply:
        """Log in by a SASL mechanism, in two steps, since a token may be too long for a line (RFC 3501 §6.2.2)."""
        self._response = base64.b64encode(response)
        return await self.command("AUTHENTICATE", mechanism)

    async def idle(self, seconds: float) -> bool:
        """Return when the server tells of new mail, or has told of it before, or after `seconds` (RFC 2177).

        False if the server refuses to tell, whatever it said of itself.
        """
        if self.news.is_set():
            return True
        self._idle_event.clear()
        self._allowed_octets = _MAX_REPLY_OCTETS
        command = IdleCommand(self.new_tag(), self.idle_queue, loop=self.loop)
        idling = asyncio.ensure_future(self.execute(command))
        accepted = asyncio.ensure_future(self._idle_event.wait())
        news = asyncio.ensure_future(self.news.wait())
        try:
            await self._answered(accepted, idling)
            if idling.done() and _reply(idling.result()).result != "OK":
                return False
            await asyncio.wait({news, idling, self._lost}, timeout=seconds, return_when="FIRST_COMPLETED")
            if not idling.done():  # the server may end it by itself
                self.send("DONE")
            await self._answered(idling)
            return True
        finally:
            for task in (idling, accepted, news):
                task.cancel()
            self.idle_queue = asyncio.Queue()  # what was told; `news` has what counts

    def selected(self) -> None:
        """Note that a folder is open: aioimaplib gives no command in the wrong state."""
        self.state = SELECTED

    def authenticated(self) -> None:
        """Note that we are logged in."""
        self.state = AUTH

    def drop(self) -> None:
        """End the connection at once."""
        if self.transport is not None:
            self.transport.abort()

    # How replies are awaited

    async def _run(self, command: Command, octets: int) -> Reply:
        self._allowed_octets = _MAX_REPLY_OCTETS + octets
        running = asyncio.ensure_future(self.execute(command))
        try:
            await self._answered(running)
            reply = _reply(running.result())
        finally:
            running.cancel()
        if reply.result == "BAD":
            raise SessionError(
                Trouble.PROTOCOL, f"the server did not understand {command.name}: {reply.text}"
            )
        return reply

    async def _answered(self, *replies_due: asyncio.Future[Any]) -> None:
        """Return once one of them is there."""
        self._due = self.loop.time() + self._timeout_seconds
        while not any(reply.done() for reply in replies_due):
            if self._lost.done():
                raise self._lost.result()
            left = self._due - self.loop.time()
            if left <= 0:
                raise SessionError(Trouble.NETWORK, "the server takes too long to reply")
            await asyncio.wait({*replies_due, self._lost}, timeout=left, return_when="FIRST_COMPLETED")

    def _lose(self, trouble: Trouble, why: str) -> None:
        if not self._lost.done():
            self._lost.set_result(SessionError(trouble, why))
        self.drop()

    # What asyncio and aioimaplib call

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        self._due += len(data) / _MIN_OCTETS_PER_SECOND
        self._allowed_octets -= len(data)
        if self._lost.done():
            return
        if self._allowed_octets < 0:
            self._lose(Trouble.PROTOCOL, "a reply does not end")
            return
        if b"\n" not in data and not self._in_literal():
            self._unended.append(data)  # aioimaplib would copy the line anew with each piece of it
            return
        data = b"".join([*self._unended, data])
        self._unended.clear()
        try:
            for piece in _pieces(data):
                super().data_received(piece)
        except Exception as error:  # noqa: BLE001 - the octets of a stranger can bring up anything in a parser
            self._lose(Trouble.PROTOCOL, f"the server does not speak as it should: {error!r:.200}")

    def _in_literal(self) -> bool:
        return self.current_command is not None and self.current_command.wait_literal_data()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end."""
        self._lose(Trouble.NETWORK, str(exc) if exc else "the server hung up")

    def _handle_line(self, line: bytes, current_cmd: Command | None) -> Command | None:
        if found := _BYE.match(line):
            self._goodbye(replies.readable(line[found.end() :]))
        elif self.state == CONNECTED and line:
            self.state = NONAUTH  # before the next line is looked at, which may have come together with it
            self._greeting.set_result(line)
            return None
        elif _NEWS.match(line):
            self.news.set()
        return super()._handle_line(line, current_cmd)

    def _goodbye(self, text: str) -> None:
        waits = self.pending_sync_command
        if waits is None or waits.name != "LOGOUT":
            self._lose(replies.trouble(text, Trouble.NETWORK), f"the server said goodbye: {text}")

    def _continuation(self, line: bytes) -> None:
        waits = self.pending_sync_command
        if waits is not None and waits.name == "AUTHENTICATE":
            # After the response only what was wrong comes as a challenge, and wants an empty answer.
            self.transport.write(self._response + b"\r\n")
            self._response = b""
        else:
            super()._continuation(line)


def _reply(response: Any) -> Reply:
    text = replies.readable(response.lines[-1]) if response.lines else ""
    return Reply(response.result, text, response.lines)


def _pieces(data: bytes) -> Iterator[bytes]:
    """Yield `data` in pieces of a few lines each."""
    if data.count(b"\n") <= _LINES_AT_ONCE:
        yield data
        return
    lines = data.split(b"\n")
    for start in range(0, len(lines), _LINES_AT_ONCE):
        end = b"\n" if start + _LINES_AT_ONCE < len(lines) else b""
        yield b"\n".join(lines[start : start + _LINES_AT_ONCE]) + end


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Make what aioimaplib raises a SessionError."""
    try:
        yield
    except (aioimaplib.AioImapException, ValueError) as error:
        raise SessionError(Trouble.PROTOCOL, str(error) or type(error).__name__) from error
    except OSError as error:
        raise unreachable(error) from error
