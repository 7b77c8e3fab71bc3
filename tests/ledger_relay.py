"""A relay and a mailbox in a thread of the test, which write down what they take before they say so.

Whatever is said passes a `Tap`, line by line, so that lightning can strike at one exact moment of a session.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mailbound.simulator import Simulator
from mailbound.simulator.envelope import Envelope

Deed = Callable[[], Awaitable[bool | bytes]]
"""What happens at a point. It returns whether the conversation goes on, or what is said in place of the line."""

_PATIENCE_SECONDS = 60.0
_MESSAGE_ID = re.compile(rb"^message-id:\s*(\S+)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Point:
    """A moment: when `side` has said, for the `count`-th time, a line that begins as `line` says."""

    side: str  # client or server
    line: str  # a regular expression
    count: int = 1
    passed: bool = False  # once the line was passed on; else while it is held back


class Tap:
    """Passes conversations on. `hidden` lines of the server are left out."""

    def __init__(self, *, hidden: str = "") -> None:
        self.port = 0
        self.connections = 0
        self._hidden = re.compile(hidden.encode()) if hidden else None
        self._point: Point | None = None
        self._deed: Deed | None = None
        self._seen = 0
        self._times = 1
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    def at(self, point: Point, deed: Deed, *, times: int = 1) -> None:
        """Do `deed` at `point`, and at the lines like it that follow, so many `times` in all."""
        self._point, self._deed, self._times, self._seen = point, deed, times, 0

    async def hang_up(self) -> None:
        """End all conversations."""
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def start(self, target: int, *, port: int = 0) -> None:
        self._target = target
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        await self.hang_up()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)
        with contextlib.closing(writer), contextlib.suppress(asyncio.CancelledError):
            their_reader, their_writer = await asyncio.open_connection("127.0.0.1", self._target)
            with contextlib.closing(their_writer):
                await self._converse(reader, writer, their_reader, their_writer)

    async def _converse(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        their_reader: asyncio.StreamReader,
        their_writer: asyncio.StreamWriter,
    ) -> None:
        pumps = {
            asyncio.ensure_future(self._pump("client", reader, their_writer)),
            asyncio.ensure_future(self._pump("server", their_reader, writer)),
        }
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, side: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                if side == "server" and self._hidden and self._hidden.match(line):
                    continue
                deed, passed = self._look(side, line)
                if deed is not None and not passed:
                    said = await deed()
                    if said is False:
                        return
                    line = said if isinstance(said, bytes) else line
                writer.write(line)
                await writer.drain()
                if deed is not None and passed and not await deed():
                    return

    def _look(self, side: str, line: bytes) -> tuple[Deed | None, bool]:
        """Return the deed that is due at this line, if any, and whether the line is passed on before."""
        point = self._point
        if point is None or side != point.side or not re.match(point.line.encode(), line):
            return None, False
        self._seen += 1
        due = point.count <= self._seen < point.count + self._times
        return (self._deed, point.passed) if due else (None, False)


class Gate:
    """A deed that holds a line back until the test opens the gate."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()

    async def __call__(self) -> bool:
        self._reached.set()
        await asyncio.to_thread(self._open.wait, _PATIENCE_SECONDS)
        return True

    def reached(self) -> bool:
        """Return whether something stands before the gate, or has passed it."""
        return self._reached.is_set()

    def open(self) -> None:
        """Let it through."""
        self._open.set()


class LedgerRelay:
    """The simulator behind two taps, `smtp` and `pop3`, in a thread of its own. A context manager."""

    def __init__(self, ledger: Path, *, port: int = 0, pipelining: bool = True, **options: Any) -> None:
        """Use `port` for SMTP, 0 being any free one; see `Options` for what else can be said."""
        self.simulator = Simulator(on_accept=self._write_down, **options)
        self.smtp = Tap(hidden="" if pipelining else "250.PIPELINING")
        self.pop3 = Tap()
        self._port = port
        self._ledger = ledger
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        self.call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the relay's loop, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_PATIENCE_SECONDS)

    @property
    def settings(self) -> dict[str, str]:
        """Return what a `Box` is told to use this relay and mailbox."""
        return {name: f'port = {tap.port}\ntls = "insecure"' for name, tap in self._taps.items()}

    def ledger(self) -> list[tuple[str, str]]:
        """Return what was accepted, in order: Message-ID and recipient."""
        if not self._ledger.exists():
            return []
        return [(*line.split(" "),) for line in self._ledger.read_text().splitlines()]  # type: ignore[misc]

    @property
    def _taps(self) -> dict[str, Tap]:
        return {"outbound": self.smtp, "inbound": self.pop3}

    def _write_down(self, envelope: Envelope) -> None:
        found = _MESSAGE_ID.search(envelope.header)
        assert found is not None
        with self._ledger.open("a") as file:
            for recipient in envelope.recipients:
                file.write(f"{found[1].decode()} {recipient.address}\n")
            file.flush()
            os.fsync(file.fileno())

    async def _start(self) -> None:
        await self.simulator.start()
        await self.smtp.start(self.simulator.smtp_port, port=self._port)
        await self.pop3.start(self.simulator.pop3_port)

    async def _stop(self) -> None:
        await self.smtp.stop()
        await self.pop3.stop()
        await self.simulator.stop()
