"""A POP3 server that does what a script says, for what no real server can be made to do.

A script is a table: what a command begins with, and the octets or the deed that answer it, or what is called and
returns one. The longest beginning counts; what the table does not know gets `+OK`.
"""

from __future__ import annotations

import asyncio
from enum import Enum


class Deed(Enum):
    """Answers that are no octets."""

    HANG_UP = "hang up"
    SAY_NOTHING = "say nothing"
    DRIP = "one octet after the other, without an end"


HANG_UP, SAY_NOTHING, DRIP = Deed

PLAIN = {
    "CAPA": b"+OK\r\nUSER\r\nUIDL\r\nTOP\r\nPIPELINING\r\n.\r\n",
    "LIST": b"+OK\r\n1 12\r\n2 12\r\n.\r\n",
    "UIDL": b"+OK\r\n1 first\r\n2 second\r\n.\r\n",
    "RETR 1": b"+OK\r\nA: 1\r\n\r\none\r\n.\r\n",
    "RETR 2": b"+OK\r\nA: 2\r\n\r\ntwo\r\n.\r\n",
}
"""Two small mails, by the book."""


class ScriptedPop3:
    """The server, as `async with ScriptedPop3({...}) as server`; `heard` is all that it was told."""

    def __init__(self, script=None, *, greeting=b"+OK ready\r\n"):
        self.script = PLAIN | (script or {})
        self.greeting = greeting
        self.heard: list[str] = []
        self._hearing = asyncio.Condition()
        self._talks: set[asyncio.Task] = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        """Stop, once every session has ended of itself: a client that leaves one open fails its test."""
        self._server.close()
        await asyncio.gather(*self._talks)
        await self._server.wait_closed()

    async def hears(self, beginning):
        """Wait until a command has come that begins so."""
        async with self._hearing:
            await self._hearing.wait_for(lambda: any(command.startswith(beginning) for command in self.heard))

    async def _talk(self, reader, writer):
        self._talks.add(asyncio.current_task())
        try:
            if await self._answer(writer, self.greeting):
                await self._converse(reader, writer)
        except ConnectionError:
            pass  # the client has gone
        finally:
            writer.close()

    async def _converse(self, reader, writer):
        while line := await reader.readline():
            command = line.decode().removesuffix("\r\n")
            async with self._hearing:
                self.heard.append(command)
                self._hearing.notify_all()
            begins = [key for key in self.script if command.upper().startswith(key.upper())]
            answer = self.script[max(begins, key=len)] if begins else b"+OK\r\n"
            if not await self._answer(writer, answer) or command.upper() == "QUIT":
                return

    async def _answer(self, writer, answer):
        """Answer, and return whether the session goes on."""
        if callable(answer):
            answer = answer()
        if isinstance(answer, bytes):
            writer.write(answer)
            await writer.drain()
        while answer is DRIP:
            writer.write(b"+")
            await writer.drain()
            await asyncio.sleep(0.001)
        return answer is not HANG_UP
