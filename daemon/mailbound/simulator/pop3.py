"""The simulated mailbox's side of a POP3 session (RFC 1939, RFC 2449, RFC 2595).

Any credentials are let in.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import ClassVar

from mailbound.simulator.lines import Conversation
from mailbound.simulator.maildrop import Maildrop
from mailbound.simulator.options import Options

_END = b".\r\n"

_Command = Callable[["Pop3Conversation", str], None]


class Pop3Conversation(Conversation):
    """One session of a client with the mailbox."""

    def __init__(
        self,
        connections: set[Conversation],
        options: Options,
        maildrop: Maildrop,
        context: ssl.SSLContext | None,
    ) -> None:
        """Begin one that shows `maildrop`; `context` allows STLS."""
        super().__init__(connections)
        self._options = options
        self._maildrop = maildrop
        self._context = context
        self._user = ""
        self._messages: list[tuple[str, bytes]] | None = None  # None: nobody has logged in
        self._marked: set[int] = set()

    def on_open(self) -> None:
        """Greet."""
        self._ok(f"{self._options.hostname} mailbound simulator")

    def on_secured(self) -> None:
        """Forget what was said in clear."""
        self._user = ""

    def on_close(self) -> None:
        """Free the maildrop. Without a QUIT nothing was removed (RFC 1939 §6)."""
        if self._messages is not None:
            self._messages = None
            self._maildrop.locked = False

    def on_line(self, line: bytes) -> None:
        """Answer one command."""
        self.wait_seconds = self._options.latency_seconds
        verb, _, argument = line.decode("utf-8", "replace").partition(" ")
        commands = self._before_login if self._messages is None else self._after_login
        command = commands.get(verb.upper())
        if command is None:
            self._error("that command may not stand here")
        else:
            command(self, argument)

    def _ok(self, text: str = "") -> None:
        self.send(f"+OK {text}".rstrip().encode() + b"\r\n")

    def _error(self, text: str) -> None:
        self.send(f"-ERR {text}\r\n".encode())

    def _capa(self, _argument: str) -> None:
        capabilities = ["TOP", "USER", "UIDL", "PIPELINING", "RESP-CODES", "AUTH-RESP-CODE", "EXPIRE NEVER"]
        if self._context is not None and not self.secure:
            capabilities.append("STLS")
        self._ok()
        self.send("".join(f"{name}\r\n" for name in capabilities).encode(), _END)

    def _stls(self, _argument: str) -> None:
        if self._context is None or self.secure:
            self._error("STLS is not offered")
            return
        self._ok("begin TLS")
        self.start_tls(self._context)

    def _name(self, argument: str) -> None:
        self._user = argument
        self._ok()

    def _pass(self, _argument: str) -> None:
        if not self._user:
            self._error("USER comes first")
        elif self._maildrop.locked:
            self._error("[IN-USE] another session has the maildrop open")
        else:
            self._maildrop.locked = True
            self._messages = self._maildrop.messages()
            self._ok(f"{len(self._messages)} messages")

    def _noop(self, _argument: str) -> None:
        self._ok()

    def _quit(self, _argument: str) -> None:
        if self._messages is not None:
            self._maildrop.remove(self._messages[number - 1][0] for number in self._marked)
        self._ok("bye")
        self.close()
        self.on_close()  # at once: a client may come back before the connection has ended

    # The maildrop

    def _there(self) -> list[tuple[int, str, bytes]]:
        return [
            (number, uid, content)
            for number, (uid, content) in enumerate(self._messages or [], 1)
            if number not in self._marked
        ]

    def _find(self, argument: str) -> int:
        """Return the number of a message that is there, or 0 after saying that there is none."""
        number = int(argument) if argument.isascii() and argument.isdigit() and len(argument) < 10 else 0
        if 1 <= number <= len(self._messages or []) and number not in self._marked:
            return number
        self._error("no such message")
        return 0

    def _message(self, number: int) -> tuple[str, bytes]:
        return (self._messages or [])[number - 1]

    def _stat(self, _argument: str) -> None:
        there = self._there()
        self._ok(f"{len(there)} {sum(len(content) for _, _, content in there)}")

    def _list(self, argument: str) -> None:
        self._show(argument, lambda _uid, content: str(len(content)))

    def _uidl(self, argument: str) -> None:
        self._show(argument, lambda uid, _content: uid)

    def _show(self, argument: str, what: Callable[[str, bytes], str]) -> None:
        if not argument:
            self._ok()
            lines = [f"{number} {what(uid, content)}\r\n" for number, uid, content in self._there()]
            self.send("".join(lines).encode(), _END)
        elif number := self._find(argument):
            self._ok(f"{number} {what(*self._message(number))}")

    def _retr(self, argument: str) -> None:
        if number := self._find(argument):
            content = self._message(number)[1]
            self._ok(f"{len(content)} octets")
            self._send_stuffed(content)

    def _top(self, argument: str) -> None:
        which, _, count = argument.partition(" ")
        if not (count.isascii() and count.isdigit() and len(count) < 10):
            self._error("TOP wants a message and a number of lines")
        elif number := self._find(which):
            header, blank, body = self._message(number)[1].partition(b"\r\n\r\n")
            lines = body.split(b"\r\n", int(count))[: int(count)]
            self._ok()
            self._send_stuffed(header + blank + b"\r\n".join(lines))

    def _send_stuffed(self, content: bytes) -> None:
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        if stuffed.startswith(b"."):
            stuffed = b"." + stuffed
        self.send(stuffed, b"" if not stuffed or stuffed.endswith(b"\r\n") else b"\r\n", _END)

    def _dele(self, argument: str) -> None:
        if number := self._find(argument):
            self._marked.add(number)
            self._ok()

    def _rset(self, _argument: str) -> None:
        self._marked.clear()
        self._ok()

    _any_time: ClassVar[dict[str, _Command]] = {"CAPA": _capa, "NOOP": _noop, "QUIT": _quit}
    _before_login: ClassVar[dict[str, _Command]] = {
        **_any_time,
        "STLS": _stls,
        "USER": _name,
        "PASS": _pass,
    }
    _after_login: ClassVar[dict[str, _Command]] = {
        **_any_time,
        "STAT": _stat,
        "LIST": _list,
        "UIDL": _uidl,
        "RETR": _retr,
        "TOP": _top,
        "DELE": _dele,
        "RSET": _rset,
    }
