"""An IMAP server that does what a script says, for what no real server can be made to do.

A script is a table: what a command begins with, after its tag, and the octets or the deed that answer it. In the
octets `TAG` stands for the command's tag. The longest beginning counts; what the table does not know gets `OK`.
A list of answers is used up one by one; its last one stays.
"""

from __future__ import annotations

import asyncio

from scripted_pop3 import DRIP, HANG_UP, SAY_NOTHING

__all__ = ["DRIP", "HANG_UP", "SAY_NOTHING", "ScriptedImap", "capable", "mails"]


def capable(*words):
    """The answer to CAPABILITY."""
    return f"* CAPABILITY IMAP4rev1 {' '.join(words)}\r\nTAG OK done\r\n".encode()


def mails(**contents):
    """The answers for mails by their uid, as `_1=b"..."`."""
    by_uid = {int(name[1:]): content for name, content in contents.items()}
    sizes = b"".join(
        b"* %d FETCH (UID %d RFC822.SIZE %d)\r\n" % (number, uid, len(content))
        for number, (uid, content) in enumerate(by_uid.items(), 1)
    )
    bodies = b"".join(
        b"* %d FETCH (UID %d BODY[]<0> {%d}\r\n%b)\r\n" % (number, uid, len(content), content)
        for number, (uid, content) in enumerate(by_uid.items(), 1)
    )
    return {
        "UID SEARCH": b"* SEARCH %b\r\nTAG OK done\r\n" % b" ".join(b"%d" % uid for uid in by_uid),
        "UID FETCH": sizes + b"TAG OK done\r\n",
        f"UID FETCH {_set(by_uid)} (UID BODY": bodies + b"TAG OK done\r\n",
    }


def _set(uids):
    first, last = min(uids), max(uids)
    return f"{first}:{last}" if last > first else str(first)


PLAIN = {
    "CAPABILITY": capable("IDLE", "UIDPLUS", "MOVE"),
    "SELECT": b"* 2 EXISTS\r\n* OK [UIDVALIDITY 7] uids are valid\r\nTAG OK [READ-WRITE] done\r\n",
    "EXAMINE": b"* 2 EXISTS\r\n* OK [UIDVALIDITY 7] uids are valid\r\nTAG OK [READ-ONLY] done\r\n",
    "IDLE": b"+ idling\r\n",
    "DONE": b"TAG OK done\r\n",
    "LOGOUT": b"* BYE bye\r\nTAG OK done\r\n",
    **mails(_1=b"A: 1\r\n\r\none\r\n", _2=b"A: 2\r\n\r\ntwo\r\n"),
}
"""Two small mails, by the book."""


class ScriptedImap:
    """The server, as `async with ScriptedImap({...}) as server`; `heard` is all that it was told, without tags."""

    def __init__(self, script=None, *, greeting=b"* OK ready\r\n", capabilities=None):
        self.script = PLAIN | ({"CAPABILITY": capable(*capabilities)} if capabilities is not None else {})
        self.script |= script or {}
        self.greeting = greeting
        self.heard: list[str] = []
        self.sessions = 0
        self._hearing = asyncio.Condition()
        self._talks: set[asyncio.Task] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0, limit=2**20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        """Stop, once every session has ended of itself: a client that leaves one open fails its test."""
        self._server.close()
        await asyncio.gather(*self._talks)
        await self._server.wait_closed()

    async def hears(self, beginning, times=1):
        """Wait until a command has come that begins so, for the n-th time."""

        def come():
            return sum(command.startswith(beginning) for command in self.heard) >= times

        async with self._hearing:
            await self._hearing.wait_for(come)

    def push(self, octets):
        """Say something unasked, in the last session."""
        self._writers[-1].write(octets)

    async def _talk(self, reader, writer):
        self._talks.add(asyncio.current_task())
        self._writers.append(writer)
        self.sessions += 1
        try:
            if await self._answer(writer, self.greeting, ""):
                await self._converse(reader, writer)
        except ConnectionError:
            pass  # the client has gone
        finally:
            writer.close()

    async def _converse(self, reader, writer):
        tag = ""
        while line := await reader.readline():
            text = line.decode().removesuffix("\r\n")
            before, _, command = text.partition(" ")
            if command:  # else it is a continuation, such as DONE, and belongs to the command before
                tag = before
            else:
                command = text
            async with self._hearing:
                self.heard.append(command)
                self._hearing.notify_all()
            if not await self._answer(writer, self._found(command), tag) or command == "LOGOUT":
                return

    def _found(self, command):
        begins = [key for key in self.script if command.upper().startswith(key.upper())]
        answer = self.script[max(begins, key=len)] if begins else b"TAG OK done\r\n"
        if isinstance(answer, list):
            return answer.pop(0) if len(answer) > 1 else answer[0]
        return answer

    async def _answer(self, writer, answer, tag):
        """Answer, and return whether the session goes on."""
        if isinstance(answer, tuple):  # octets, and then a deed
            await self._answer(writer, answer[0], tag)
            answer = answer[1]
        if isinstance(answer, bytes):
            writer.write(answer.replace(b"TAG", tag.encode()))
            await writer.drain()
        while answer is DRIP:
            writer.write(b"+")
            await writer.drain()
            await asyncio.sleep(0.001)
        return answer is not HANG_UP
