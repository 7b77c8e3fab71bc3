"""A line that takes its time: what comes in on PORT goes to TARGET, and back, each way so many milliseconds later.

python bench/distance.py PORT TARGET MILLISECONDS
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable


class _End(asyncio.Protocol):
    """One end of a line; `other` is written to, later."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._later(lambda other: other.write(data))

    def connection_lost(self, _: Exception | None) -> None:
        self._later(lambda other: other.close())

    def _later(self, deed: Callable[[asyncio.Transport], None]) -> None:
        def now() -> None:
            if self.other is not None and self.other.transport is not None:
                deed(self.other.transport)

        asyncio.get_running_loop().call_later(self._delay, now)


async def _serve(port: int, target: int, delay: float) -> None:
    loop = asyncio.get_running_loop()

    class Near(_End):
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            transport.pause_reading()  # until there is somebody to talk to
            lines.add(task := loop.create_task(self._extend()))
            task.add_done_callback(lines.discard)

        async def _extend(self) -> None:
            self.other = far = _End(delay)
            far.other = self
            await loop.create_connection(lambda: far, "127.0.0.1", target)
            assert self.transport is not None
            self.transport.resume_reading()

    lines: set[asyncio.Task[None]] = set()
    server = await loop.create_server(lambda: Near(delay), "127.0.0.1", port, backlog=1000)
    await server.serve_forever()


def main(arguments: list[str]) -> None:
    """Serve until killed."""
    port, target, milliseconds = arguments
    asyncio.run(_serve(int(port), int(target), float(milliseconds) / 1e3))


if __name__ == "__main__":
    main(sys.argv[1:])
