"""A way to PostgreSQL that breaks off at what commits: before the server has it, or before its answer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Self

_COMMITS = b"COMMIT\0", b"\0mailbound_"  # a statement of ours that is bound commits by itself
_PATIENCE_SECONDS = 10.0


class CommitCutter:
    """A proxy in a thread of its own, before the server at `port`. A context manager.

    While `armed`, it breaks off at every `every`-th COMMIT and counts that in `cuts`; what is
    `then` to do is done before.
    """

    def __init__(self, port: int, *, committed: bool, every: int) -> None:
        """Listen nowhere yet. `committed` says whether the server may do what it was asked for."""
        self.port = 0
        self.armed = False
        self.cuts = 0
        self.then: Callable[[], None] = lambda: None
        self._target = port
        self._committed = committed
        self._every = every
        self._seen = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cutter", daemon=True)
        self._talks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_PATIENCE_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        """Break off everything."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_PATIENCE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)
        with contextlib.closing(writer), contextlib.suppress(asyncio.CancelledError, OSError):
            their_reader, their_writer = await asyncio.open_connection("127.0.0.1", self._target)
            with contextlib.closing(their_writer):
                cut = asyncio.Event()
                pumps = {
                    asyncio.ensure_future(self._ask(reader, their_writer, cut)),
                    asyncio.ensure_future(self._answer(their_reader, writer, cut)),
                }
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: asyncio.Event
    ) -> None:
        while asked := await reader.read(65_536):
            if self.armed and any(commit in asked for commit in _COMMITS):
                self._seen += 1
                if self._seen % self._every == 0:
                    cut.set()
                    if not self._committed:
                        self._strike()
                        return
            writer.write(asked)
            await writer.drain()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: asyncio.Event
    ) -> None:
        while answer := await reader.read(65_536):
            if cut.is_set():
                self._strike()
                return
            writer.write(answer)
            await writer.drain()

    def _strike(self) -> None:
        self.cuts += 1
        self.then()
