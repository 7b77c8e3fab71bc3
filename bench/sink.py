"""A relay that accepts everything, costs next to nothing, and counts. It speaks PIPELINING.

    python bench/sink.py PORT TALLY

TALLY is a file of 24 octets that holds how many messages were accepted, and when the first and the last of them were
(CLOCK_MONOTONIC). `relays.py` starts one and reads its tally.
"""

from __future__ import annotations

import asyncio
import mmap
import struct
import sys
import time
from pathlib import Path

import uvloop

TALLY = struct.Struct("=qdd")
"""How many, the first, the last."""

_END = b"\r\n.\r\n"
_REPLIES = {
    b"EHLO": b"250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 0\r\n250-DSN\r\n250 ENHANCEDSTATUSCODES\r\n",
    b"HELO": b"250 sink.test\r\n",
    b"MAIL": b"250 2.1.0 Ok\r\n",
    b"RCPT": b"250 2.1.5 Ok\r\n",
    b"DATA": b"354 Go on\r\n",
    b"RSET": b"250 2.0.0 Ok\r\n",
    b"NOOP": b"250 2.0.0 Ok\r\n",
    b"QUIT": b"221 2.0.0 Bye\r\n",
}


class _Session(asyncio.Protocol):
    def __init__(self, tally: mmap.mmap) -> None:
        self._tally = tally
        self._taken = bytearray()
        self._in_message = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.write(b"220 sink.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._taken += data
        replies = []
        while reply := self._accept() if self._in_message else self._obey():
            replies.append(reply)
        self._transport.write(b"".join(replies))

    def _accept(self) -> bytes:
        """Take the rest of a message, if all of it is here."""
        end = self._taken.find(_END)
        if end < 0:
            return b""
        del self._taken[: end + len(_END)]
        self._in_message = False
        count, first, _ = TALLY.unpack_from(self._tally)
        now = time.monotonic()
        TALLY.pack_into(self._tally, 0, count + 1, first or now, now)
        return b"250 2.0.0 Ok: queued\r\n"

    def _obey(self) -> bytes:
        """Take a command, if there is one."""
        line, found, _ = self._taken.partition(b"\r\n")
        if not found:
            return b""
        verb = bytes(line[:4]).upper()
        # What a message ends with may be all there is of it: its end is sought from here on.
        del self._taken[: len(line) + (0 if verb == b"DATA" else 2)]
        self._in_message = verb == b"DATA"
        return _REPLIES.get(verb, b"500 5.5.1 What?\r\n")


async def _serve(port: int, tally: mmap.mmap) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: _Session(tally), "127.0.0.1", port, backlog=1000
    )
    await server.serve_forever()


def main(arguments: list[str]) -> None:
    port, path = arguments
    with Path(path).open("r+b") as file:
        tally = mmap.mmap(file.fileno(), TALLY.size)
    uvloop.run(_serve(int(port), tally))


if __name__ == "__main__":
    main(sys.argv[1:])
