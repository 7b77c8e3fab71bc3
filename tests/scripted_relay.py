"""A relay that plays a script, for what no real one does on request.

Each line of a script is one step:

    S: 250 ok     send a line; neighbouring lines go out in one segment
    S~ 250 ok     send a line octet by octet
    S= 250 o      send these characters, with no end of line
    C: MAIL       read a line, which must begin so
    BODY          read a message up to its final dot
    PART          read a message as far as it goes without its final dot, up to `relay.part`
    WAIT          wait until the test sets `relay.go`
    TLS           become the server of a TLS handshake
    DROP          close the connection
    HANG          say nothing more, and read what comes until the client closes

At the end of its script the relay reads what comes until the client closes, and keeps it in `rest`. A
connection that does not follow its script fails the test.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

GREETING = """
S: 220 relay.example ESMTP
C: EHLO
"""


def hello(*keywords: str) -> str:
    """Return the script of a greeting and an EHLO that offers `keywords`."""
    lines = ["relay.example", *keywords]
    return (
        GREETING + "\n".join(f"S: 250{'-' if line is not lines[-1] else ' '}{line}" for line in lines) + "\n"
    )


class ScriptedRelay:
    """What a relay saw: `lines` and `bodies` of all connections, in order."""

    def __init__(self, scripts, context=None):
        self.scripts = scripts
        self.context = context
        self.port = 0
        self.connections = 0
        self.lines: list[str] = []
        self.bodies: list[bytes] = []
        self.rest = b""
        self.part = b""
        self.faults: list[str] = []
        self.go = asyncio.Event()
        self.open: set[asyncio.Task] = set()

    async def play(self, reader, writer):
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        self.open.add(asyncio.current_task())
        try:
            await self._play(script, reader, writer)
            self.rest += await reader.read()
        except (ConnectionError, ssl.SSLError):
            pass  # the client broke off, as a test may want it to
        except asyncio.IncompleteReadError as error:
            self.faults.append(f"the client went away, having said {error.partial!r}")
        except AssertionError as error:
            self.faults.append(str(error))
        finally:
            writer.transport.abort()

    async def _play(self, script, reader, writer):
        steps = {
            "S~": self._drip,
            "C:": self._read_line,
            "BODY": self._read_body,
            "PART": self._read_part,
            "WAIT": self._wait,
            "TLS": self._start_tls,
            "DROP": self._drop,
            "HANG": self._hang,
        }
        pending = ""
        for line in filter(None, map(str.strip, script.splitlines())):
            word, _, text = line.partition(" ")
            if word in ("S:", "S="):
                pending += text + ("\r\n" if word == "S:" else "")
                continue
            writer.write(pending.encode("latin-1"))
            pending = ""
            await steps[word](text, reader, writer)
        writer.write(pending.encode("latin-1"))

    async def _drip(self, text, reader, writer):
        for character in text + "\r\n":
            writer.write(character.encode())
            await writer.drain()
            await asyncio.sleep(0)

    async def _wait(self, text, reader, writer):
        await self.go.wait()

    async def _start_tls(self, text, reader, writer):
        await writer.start_tls(self.context)

    async def _drop(self, text, reader, writer):
        writer.close()

    async def _hang(self, text, reader, writer):
        """Do nothing: `play` reads what comes."""

    async def _read_line(self, expected, reader, writer):
        line = (await reader.readuntil(b"\r\n")).decode().removesuffix("\r\n")
        self.lines.append(line)
        assert line.startswith(expected), f"expected {expected!r}, got {line!r}"

    async def _read_part(self, text, reader, writer):
        got = b""
        while self.part not in got:
            got += await reader.read(65536) or b"\0"
        assert not got.endswith(b"\r\n.\r\n"), "the final dot came too early"

    async def _read_body(self, text, reader, writer):
        body = b""
        while body != b".\r\n" and not body.endswith(b"\r\n.\r\n"):
            body += await reader.readuntil(b"\n")
        self.bodies.append(body)


async def until(condition):
    """Let others run until `condition()` is true."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("what should happen did not")


@contextlib.asynccontextmanager
async def serve(*scripts: str, context=None, tls=None) -> AsyncIterator[ScriptedRelay]:
    """Serve the n-th connection by the n-th of `scripts`, and those after the last one by the last."""
    relay = ScriptedRelay(scripts, context)
    server = await asyncio.start_server(relay.play, "127.0.0.1", 0, ssl=tls, limit=1 << 20)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
        if relay.open:
            await asyncio.wait(relay.open, timeout=5)
        assert relay.faults == []
    finally:
        server.close()
        for task in relay.open:
            task.cancel()
        await asyncio.gather(*relay.open, return_exceptions=True)
        await server.wait_closed()
