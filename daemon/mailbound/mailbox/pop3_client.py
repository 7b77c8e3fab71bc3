"""poplib, made fit for servers that are slow, broken or hostile. It blocks, so it lives in a thread.

What differs from poplib: only CRLF ends a line, so that no mail can forge a reply by a bare LF (RFC 1939
§3); a reply has a deadline as a whole, not for each read; a line may be long and a mail may be larger than
wanted, and the session survives both; data that nobody asked for ends it.
"""

from __future__ import annotations

import base64
import contextlib
import poplib
import socket
import ssl
import time

_CONNECT_SECONDS = 20.0
_MAX_LINE_OCTETS = 1_048_576
_MAX_LISTING_OCTETS = 67_108_864  # about a million mails
_READ_OCTETS = 65_536
# What arrives buys a little time, so that a large mail gets its minutes and a dripping server does not.
_MIN_OCTETS_PER_SECOND = 4096
_END = b"\r\n.\r\n"


class UnfitReplyError(Exception):
    """The server does not speak POP3, or no longer."""


class Pop3Client(poplib.POP3):
    """One session. Raises poplib.error_proto for -ERR, UnfitReplyError, and OSError for all else."""

    def __init__(self, host: str, port: int, timeout_seconds: float) -> None:
        """Prepare a session. Nothing is connected yet, so that `interrupt` works from the beginning."""
        self.host = host
        self.port = port
        self._timeout_seconds = timeout_seconds
        self._debugging = 0
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self._due = 1  # replies that are to come; the greeting is the first
        self._deadline = 0.0

    def connect(self, context: ssl.SSLContext | None) -> None:
        """Connect, under TLS if there is a `context`, and read the greeting."""
        address = (self.host, self.port)
        self._socket = socket.create_connection(address, min(self._timeout_seconds, _CONNECT_SECONDS))
        if context is not None:
            self._begin_tls(context)
        self.welcome = self._getresp()

    def begin_tls(self, context: ssl.SSLContext) -> None:
        """Ask for TLS (RFC 2595 §4) and begin it."""
        self.command("STLS")
        if self._buffer:
            raise UnfitReplyError("data came ahead of TLS")
        self._begin_tls(context)

    def interrupt(self) -> None:
        """Make what goes on in the session's thread fail; the one method to be called from another."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # Not SSLSocket's method, which would pull the TLS object from under the other thread.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Drop the connection, without a QUIT."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def authenticate(self, mechanism: str, response: bytes) -> None:
        """Log in by a SASL mechanism of one step (RFC 5034 §4), in two, since a token may be long.

        Some servers want the response at once, and refuse the bare command; no login was tried then.
        """
        said = base64.b64encode(response).decode()
        self.request([f"AUTH {mechanism}"])
        try:
            self._answer()
        except poplib.error_proto as refusal:
            if "[" in str(refusal):  # it is not that, then
                raise
            self.request([f"AUTH {mechanism} {said}"])
        else:
            self.request([said])
        if not self._answer().startswith(b"+OK"):
            self.request([""])  # what was wrong came as a challenge, which wants an empty answer
            self._getresp()

    def capabilities(self) -> dict[str, list[str]]:
        """Return what the server can do, with arguments (RFC 2449 §5); {} if it does not say."""
        try:
            lines = self.listing("CAPA").decode("utf-8", "replace").split("\r\n")
        except poplib.error_proto:
            return {}
        words = [line.split() for line in lines]
        return {first.upper(): rest for first, *rest in filter(None, words)}

    def command(self, line: str) -> str:
        """Return the reply to a command of one line, without its +OK."""
        self.request([line])
        return self.reply()

    def listing(self, line: str) -> bytes:
        """Return the body of the reply to a command, whose lines end with CRLF."""
        self.command(line)
        content, truncated = self.body(_MAX_LISTING_OCTETS, _MAX_LISTING_OCTETS)
        if truncated:
            raise UnfitReplyError(f"the reply to {line} does not end")
        return content

    def request(self, lines: list[str]) -> None:
        """Send commands, each of whose replies is then to be read, in order, behind those of earlier ones."""
        if self._buffer and not self._due:
            raise UnfitReplyError("the server says more than it was asked")
        self._due += len(lines)
        connection = self._connection()
        connection.settimeout(self._timeout_seconds)
        connection.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def reply(self) -> str:
        """Return the next reply, without its +OK."""
        return self._getresp().decode("utf-8", "replace").partition(" ")[2]

    def body(self, limit_octets: int, most_octets: int) -> tuple[bytes, bool]:
        """Return what follows a reply, and whether it was cut, at the end of a line within the limit.

        All of it is read, so that the session can go on. Raises UnfitReplyError after `most_octets`.
        """
        buffer = self._buffer
        while len(buffer) < 3:
            self._receive()
        if buffer.startswith(b".\r\n"):
            del buffer[:3]
            return b"", False
        head = b""  # what is kept, once more has come than that
        passed = searched = 0
        while (end := buffer.find(_END, max(0, searched - 4))) < 0:
            searched = len(buffer)
            if searched > limit_octets + 4:
                head = head or bytes(buffer[:limit_octets])
                passed += searched - 4
                del buffer[:-4]  # enough to know the end by
                searched = 4
            if passed > most_octets:
                raise UnfitReplyError("a reply does not end")
            self._receive()
        content = head or bytes(memoryview(buffer)[: end + 2])
        del buffer[: end + len(_END)]
        truncated = passed > 0 or len(content) > limit_octets
        if truncated:
            content = content[: content.rfind(b"\r\n", 0, limit_octets) + 2] or content[:limit_octets]
        return content.removeprefix(b".").replace(b"\r\n.", b"\r\n"), truncated

    # What poplib's own methods stand on

    def _shortcmd(self, line: str) -> bytes:
        self.request([line])
        return self._getresp()

    def _getresp(self) -> bytes:
        line = self._answer()
        if not line.startswith(b"+OK"):
            raise UnfitReplyError(f"+OK or -ERR was due: {line[:80]!r}")
        return line

    def _answer(self) -> bytes:
        """Return the next line, be it a reply or a challenge; -ERR is an exception."""
        self._deadline = time.monotonic() + self._timeout_seconds
        self._due -= 1
        line = self._getline()
        if line.startswith(b"-ERR"):
            raise poplib.error_proto(line.decode("utf-8", "replace"))
        return line

    def _getline(self) -> bytes:
        searched = 0
        while (end := self._buffer.find(b"\r\n", searched)) < 0:
            searched = max(0, len(self._buffer) - 1)
            if searched > _MAX_LINE_OCTETS:
                raise UnfitReplyError("a line does not end")
            self._receive()
        line = bytes(memoryview(self._buffer)[:end])
        del self._buffer[: end + 2]
        return line

    def _receive(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the server takes too long to reply")
        connection = self._connection()
        connection.settimeout(left)
        arrived = connection.recv(_READ_OCTETS)
        if not arrived:
            raise ConnectionError("the server hung up")
        self._buffer += arrived
        self._deadline += len(arrived) / _MIN_OCTETS_PER_SECOND

    def _connection(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionError("the session has ended")
        return self._socket

    def _begin_tls(self, context: ssl.SSLContext) -> None:
        connection = self._connection()
        connection.settimeout(self._timeout_seconds)
        secure = context.wrap_socket(connection, server_hostname=self.host, do_handshake_on_connect=False)
        self._socket = secure
        secure.do_handshake()
