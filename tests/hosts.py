"""Hosts of one machine: each a network namespace of its own, whose lines to the world can be cut one by one.

Only loopback addresses are used. In its namespace a host finds each service under an address of its own; what arrives
there is passed on by the test's process, which listens in all namespaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from servers import need, need_root

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET


class Host:
    """One namespace; `prefix` starts a program in it."""

    def __init__(self, name: str) -> None:
        """Make it, with its loopback up."""
        self.name = name
        self.prefix = ["ip", "netns", "exec", name]
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")

    def cut(self, address: str) -> None:
        """Let nothing through to an address any more, as if its cable were pulled: nobody is told."""
        _ip("-n", self.name, "route", "add", "blackhole", f"{address}/32", "table", "local")

    def mend(self, address: str) -> None:
        """Put the cable back."""
        _ip("-n", self.name, "route", "del", "blackhole", f"{address}/32", "table", "local")

    def listen(self, address: str, port: int) -> socket.socket:
        """Return a socket that listens in the namespace."""
        found: list[socket.socket | OSError] = []

        def within() -> None:
            try:
                with Path(f"/run/netns/{self.name}").open() as namespace:
                    _enter(namespace.fileno())
                found.append(socket.create_server((address, port)))
            except OSError as error:
                found.append(error)

        thread = threading.Thread(target=within)  # a namespace is its thread's own
        thread.start()
        thread.join()
        if isinstance(found[0], OSError):
            raise found[0]
        return found[0]

    def close(self) -> None:
        """Remove it."""
        _ip("netns", "del", self.name)


class Lines:
    """Passes on what arrives in the namespaces, in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lines", daemon=True)
        self._thread.start()
        self._servers: list[asyncio.Server] = []

    def lay(self, host: Host, address: str, port: int) -> None:
        """Let a host find our `port` under `address`."""
        listening = host.listen(address, port)

        async def start() -> None:
            async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    theirs, ours = await asyncio.open_connection("127.0.0.1", port)
                    pumps = [_pump(reader, ours), _pump(theirs, writer)]
                    await asyncio.gather(*pumps)

            self._servers.append(await asyncio.start_server(talk, sock=listening))

        asyncio.run_coroutine_threadsafe(start(), self._loop).result(10)

    def close(self) -> None:
        """Take all lines down."""

        async def stop() -> None:
            for server in self._servers:
                server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextlib.contextmanager
def hosts(count: int) -> Iterator[tuple[list[Host], Lines]]:
    """Give so many hosts, and lines to be laid to them."""
    need_root()
    need("ip")
    made: list[Host] = []
    lines = Lines()
    try:
        made.extend(Host(f"mailbound-{os.getpid()}-{number}") for number in range(count))
        yield made, lines
    finally:
        lines.close()
        for host in made:
            host.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while octets := await reader.read(65536):
            writer.write(octets)
            await writer.drain()
    finally:
        writer.close()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "setns")
