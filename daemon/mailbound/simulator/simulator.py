"""A relay and a mailbox in one process: what is sent to the one bounces into the other."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from mailbound.simulator import reports
from mailbound.simulator.envelope import Envelope
from mailbound.simulator.lines import Conversation
from mailbound.simulator.maildrop import Maildrop
from mailbound.simulator.options import Options
from mailbound.simulator.pop3 import Pop3Conversation
from mailbound.simulator.receiver import Receiver
from mailbound.simulator.smtp import SmtpConversation


@dataclass(kw_only=True, eq=False)
class Simulator(Options):
    """A relay and a mailbox, with the options of `Options`.

    `smtp_port` and `pop3_port` are the real ones after `start`. Each accepted message is handed to
    `on_accept` before its reply goes out, as a ledger needs it. Use it as `async with Simulator(...)`
    or call `start` and `stop`.
    """

    on_accept: Callable[[Envelope], None] | None = None

    def __post_init__(self) -> None:
        """Check what was told. Raises ValueError for a share that is none, or an unknown form."""
        for name in ("bounce_rate", "fail_final"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not a share (0 to 1)")
        if self.form is not None and self.form not in reports.FORMS:
            raise ValueError(f"form: {self.form!r} is none of {', '.join(reports.FORMS)}")
        self.maildrop = Maildrop()
        self._receiver = Receiver(self, self.maildrop, self.on_accept)
        self._connections: set[Conversation] = set()
        self._servers: list[asyncio.Server] = []

    @property
    def accepted(self) -> int:
        """Return how many messages were taken."""
        return self._receiver.accepted

    @property
    def refused(self) -> int:
        """Return how many replies refused or deferred a recipient or a message."""
        return self._receiver.refused

    @property
    def reports(self) -> int:
        """Return how many mails fell into the mailbox."""
        return self._receiver.reports

    @property
    def pending(self) -> int:
        """Return how many mails will still fall into it for what was taken so far."""
        return self._receiver.pending

    @property
    def messages(self) -> deque[Envelope]:
        """Return the last accepted messages, at most `keep`."""
        return self._receiver.messages

    async def quiet(self) -> None:
        """Wait until all has fallen into the mailbox that will for what was taken so far."""
        await self._receiver.quiet()

    async def start(self) -> None:
        """Listen on both ports. Raises OSError if one is taken or the certificate cannot be read."""
        context = self._tls_context()
        implicit = context if self.tls == "implicit" else None
        explicit = context if self.tls == "starttls" else None
        loop = asyncio.get_running_loop()
        try:
            smtp = await loop.create_server(
                lambda: SmtpConversation(self._connections, self, self._receiver, explicit),
                self.host,
                self.smtp_port,
                ssl=implicit,
                backlog=1000,
            )
            self._servers.append(smtp)
            pop3 = await loop.create_server(
                lambda: Pop3Conversation(self._connections, self, self.maildrop, explicit),
                self.host,
                self.pop3_port,
                ssl=implicit,
            )
            self._servers.append(pop3)
        except OSError:
            await self.stop()
            raise
        self.smtp_port = smtp.sockets[0].getsockname()[1]
        self.pop3_port = pop3.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, break off what is open, and forget the reports that are still to come."""
        self._receiver.stop()
        for server in self._servers:
            server.close()
        await asyncio.gather(*[connection.abort() for connection in list(self._connections)])
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    def _tls_context(self) -> ssl.SSLContext | None:
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


async def serve(simulator: Simulator, started: Callable[[Simulator], None] = lambda _: None) -> None:
    """Run `simulator` until cancelled; `started` is called once its ports are open."""
    async with simulator:
        started(simulator)
        await asyncio.get_running_loop().create_future()
