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

from mailbound.mailbox import HEAD_OCTETS

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
        self._arrived = b""
        self._read = 0  # so many octets of it
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
        if self._is_ahead():
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
        if not self._due and self._is_ahead():
            raise UnfitReplyError("the server says more than it was asked")
        self._due += len(lines)
        connection = self._connection()
        connection.settimeout(self._timeout_seconds)
        connection.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def reply(self) -> str:
        """Return the next reply, without its +OK."""
        return self._getresp().decode("utf-8", "replace").partition(" ")[2]

    def long_reply(self, limit_octets: int, most_octets: int) -> tuple[bytes, bool]:
        """Return what follows the next reply, as `body` does. Nearly always it has arrived as a whole."""
        arrived = self._arrived
        line = arrived.find(b"\r\n", self._read)
        if line >= 0 and arrived.startswith(b"+OK", self._read):
            # The first line that begins with a dot is the end, unless there is a dot to be taken away.
            end = arrived.find(b"\r\n.", line)
            if arrived.startswith(b"\r\n", end + 3) and 0 <= end - line <= limit_octets:
                self._read = end + len(_END)
                self._due -= 1
                return arrived[line + 2 : end + 2], False
        self._getresp()
        return self.body(limit_octets, most_octets)

    def body(self, limit_octets: int, most_octets: int) -> tuple[bytes, bool]:
        """Return what follows a reply, and whether it was cut: of more than the limit only the head is kept.

        All of it is read, so that the session can go on. Raises UnfitReplyError after `most_octets`.
        """
        # An empty body is the end of the line before it, and a dot: so the search begins there.
        while (end := self._arrived.find(_END, self._read - 2)) < 0:
            if len(self._arrived) - self._read > _READ_OCTETS:
                return self._large_body(limit_octets, most_octets)
            self._receive()
        content = self._arrived[self._read : end + 2]
        self._read = end + len(_END)
        return _unstuffed(content, limit_octets)

    def _large_body(self, limit_octets: int, most_octets: int) -> tuple[bytes, bool]:
        """Return what `body` does, of one that would be copied too often if it were kept with what comes behind it."""
        buffer = bytearray(memoryview(self._arrived)[self._read :])
        self._arrived, self._read = b"", 0
        head = b""  # what is kept, once more has come than the limit
        passed = searched = 0
        while (end := buffer.find(_END, max(0, searched - 4))) < 0:
            searched = len(buffer)
            if searched > limit_octets + 4:
                head = head or bytes(memoryview(buffer)[: min(limit_octets, HEAD_OCTETS) + 1])
                passed += searched - 4
                del buffer[:-4]  # enough to know the end by
                searched = 4
            if passed > most_octets:
                raise UnfitReplyError("a reply does not end")
            buffer += self._more()
        self._arrived = bytes(memoryview(buffer)[end + len(_END) :])
        if head:
            return _unstuffed(head, len(head) - 1)
        content = bytes(memoryview(buffer)[: end + 2])
        del buffer  # it may be large, and so may what is made of it
        return _unstuffed(content, limit_octets)

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
        while (end := self._arrived.find(b"\r\n", self._read)) < 0:
            if len(self._arrived) - self._read > _MAX_LINE_OCTETS:
                raise UnfitReplyError("a line does not end")
            self._receive()
        line = self._arrived[self._read : end]
        self._read = end + 2
        return line

    def _receive(self) -> None:
        """Wait for more, and keep it behind what is not yet read and the end of the line before that."""
        self._arrived = self._arrived[max(0, self._read - 2) :] + self._more()
        self._read = min(2, self._read)

    def _more(self) -> bytes:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the server takes too long to reply")
        connection = self._connection()
        connection.settimeout(left)
        arrived = connection.recv(_READ_OCTETS)
        if not arrived:
            raise ConnectionError("the server hung up")
        self._deadline += len(arrived) / _MIN_OCTETS_PER_SECOND
        return arrived

    def _is_ahead(self) -> bool:
        return len(self._arrived) > self._read

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


def _unstuffed(content: bytes, limit_octets: int) -> tuple[bytes, bool]:
    """Return a body without the dots that it was sent with, and whether it was cut, at a line's end if possible."""
    truncated = len(content) > limit_octets
    if truncated:
        most = min(limit_octets, HEAD_OCTETS)
        end = content.rfind(b"\r\n", 0, most)
        content = content[: end + 2 if end >= 0 else most]
    return content.removeprefix(b".").replace(b"\r\n.", b"\r\n"), truncated
