"""A connection over which lines are sent and answered, for both of the simulator's servers.

Callbacks only, no task: what has arrived is taken up line by line, and the replies to all of it go out
in one write.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

_MAX_LINE_OCTETS = 12_288  # RFC 4954 §4.3, the longest that any of our commands may be
_MAX_QUEUED_OCTETS = 262_144  # of replies, before the transport is asked whether the client reads


class Conversation(asyncio.Protocol):
    """One connection. A subclass answers each line in `on_line`, with `send`."""

    def __init__(self, connections: set[Conversation]) -> None:
        """Begin a conversation that is one of `connections` for as long as it lasts."""
        self.transport: asyncio.Transport
        self.closing = False
        self.wait_seconds = 0.0  # before what was sent last goes out; `on_line` may set it
        self._connections = connections
        self._buffer = bytearray()
        self._replies: list[bytes] = []
        self._queued_octets = 0
        self._choked = False  # the peer does not read
        self._held = False  # a reply waits for its time, or TLS for its handshake
        self._upgrade: ssl.SSLContext | None = None
        self._upgrading: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    @property
    def secure(self) -> bool:
        """Return whether the connection is under TLS."""
        return self.transport.get_extra_info("ssl_object") is not None

    def on_open(self) -> None:
        """Greet the client."""

    def on_line(self, line: bytes) -> None:
        """Answer one line, which comes without its CRLF."""
        raise NotImplementedError

    def on_secured(self) -> None:
        """Forget what the client said before TLS."""

    def on_close(self) -> None:
        """Clean up after the connection has ended, however it did."""

    def send(self, *replies: bytes) -> None:
        """Have `replies` go out, after all that was sent before."""
        self._replies.extend(replies)
        self._queued_octets += sum(map(len, replies))

    def close(self) -> None:
        """Have the connection end once all has gone out that was sent."""
        self.closing = True

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Have TLS begin once all has gone out. Drops what came ahead of it (RFC 3207 §6)."""
        self._upgrade = context

    async def abort(self) -> None:
        """Break the connection off, and wait until it has ended."""
        self.closing = True
        self.transport.abort()
        await self._ended.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        self.on_open()
        self._settle(0)

    def data_received(self, data: bytes) -> None:
        """Take up what has arrived."""
        self._buffer += data
        self._take_up()

    def pause_writing(self) -> None:
        """Stop answering, since the client does not read what it gets."""
        self._choked = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._choked = False
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """End."""
        self.closing = True
        self._connections.discard(self)
        self.on_close()
        self._ended.set()

    def take_one(self, position: int) -> int:
        """Take up one line of the buffer; return where the next begins, or -1 if it is not there yet."""
        end = self._buffer.find(b"\r\n", position)
        if end < 0:
            if len(self._buffer) - position > _MAX_LINE_OCTETS:
                self.close()
            return -1
        self.on_line(bytes(self._buffer[position:end]))
        return end + 2

    def _take_up(self) -> None:
        position = 0
        while not (self.closing or self._choked or self._held or self._upgrade):
            following = self.take_one(position)
            if following < 0:
                break
            position = following
            if self.wait_seconds:
                break
            if self._queued_octets > _MAX_QUEUED_OCTETS:
                self._write()
        self._settle(position)

    def _settle(self, position: int) -> None:
        """Let go of the buffer before `position`, and write, wait, upgrade or close, as is due."""
        del self._buffer[:position]
        if self.wait_seconds:
            self._hold()
            asyncio.get_running_loop().call_later(self.wait_seconds, self._release)
            self.wait_seconds = 0.0
        elif not self._held:
            self._finish()

    def _write(self) -> None:
        if self._replies:
            replies = b"".join(self._replies)
            self._replies.clear()
            self._queued_octets = 0
            self.transport.write(replies)

    def _finish(self) -> None:
        self._write()
        if self.closing:
            self.transport.close()
        elif self._upgrade is not None:
            self._hold()
            self._buffer.clear()
            self._upgrading = asyncio.get_running_loop().create_task(self._secure(self._upgrade))

    def _hold(self) -> None:
        self._held = True
        self.transport.pause_reading()

    def _release(self) -> None:
        self._held = False
        self._finish()
        self._go_on()

    def _go_on(self) -> None:
        if not (self.closing or self._choked or self._held):
            self.transport.resume_reading()
            self._take_up()

    async def _secure(self, context: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(self.transport, self, context, server_side=True)
        except OSError:  # the client did not like our certificate, or went away
            self.transport.abort()
            self.connection_lost(None)
            return
        assert transport is not None  # noqa: S101 - None only if the transport was closed before
        self.transport = transport
        self._upgrade = None
        self._held = False
        self.on_secured()
        self._take_up()  # it may have come while the handshake ended
