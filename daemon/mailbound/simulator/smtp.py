"""The simulated relay's side of an SMTP session (RFC 5321), with what a submission client may ask for.

PIPELINING (RFC 2920), SIZE, 8BITMIME, SMTPUTF8, ENHANCEDSTATUSCODES, DSN, STARTTLS, and AUTH with any
credentials.
"""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import Callable
from typing import ClassVar

from mailbound.model import Reply
from mailbound.simulator import parameters
from mailbound.simulator.envelope import Envelope, Recipient
from mailbound.simulator.lines import Conversation
from mailbound.simulator.options import Options
from mailbound.simulator.receiver import Receiver

_END_OF_DATA = b"\r\n.\r\n"
_CLOSING_CODE = 421  # RFC 5321 §3.8: the server hangs up after it


class SmtpConversation(Conversation):
    """One session of a client with the relay."""

    def __init__(
        self,
        connections: set[Conversation],
        options: Options,
        receiver: Receiver,
        context: ssl.SSLContext | None,
    ) -> None:
        """Begin one that brings its messages to `receiver`; `context` allows STARTTLS."""
        super().__init__(connections)
        self._options = options
        self._receiver = receiver
        self._context = context
        self._greeted = False
        self._user = ""
        self._challenge: Callable[[str], None] | None = None  # takes the next line, while AUTH goes on
        self._sender: parameters.Sender | None = None
        self._recipients: list[Recipient] = []
        self._in_body = False
        self._searched = 0  # octets of the body in which its end was looked for
        self._too_long = False

    # The connection

    def on_open(self) -> None:
        """Greet, or turn the client away."""
        self.wait_seconds = self._options.latency_seconds
        if self._options.refuse_connections:
            self._say(421, f"4.3.2 {self._options.hostname} takes no connections at the moment")
        else:
            self._say(220, f"{self._options.hostname} ESMTP mailbound simulator")

    def on_secured(self) -> None:
        """Forget what was said in clear (RFC 3207 §4.2)."""
        self._greeted = False
        self._user = ""
        self._forget()

    def take_one(self, position: int) -> int:
        """Take up one line or, after DATA, the whole body."""
        return self._take_body(position) if self._in_body else super().take_one(position)

    def on_line(self, line: bytes) -> None:
        """Answer one command."""
        self.wait_seconds = self._options.latency_seconds
        text = line.decode("utf-8", "replace")
        if self._challenge is not None:
            self._challenge(text)
            return
        verb, _, argument = text.partition(" ")
        command = self._commands.get(verb.upper())
        if command is None:
            self._say(500, f"5.5.2 Command not recognised: {verb[:20]!a}")
        else:
            command(self, argument)

    def _say(self, code: int, text: str) -> None:
        *before, last = text.split("\n")
        lines = [f"{code}-{line}\r\n" for line in before]
        self.send("".join([*lines, f"{code} {last}\r\n"]).encode())
        if code == _CLOSING_CODE:
            self.close()

    def _reply(self, reply: Reply) -> None:
        self._say(reply.code, reply.text)

    # The session

    def _ehlo(self, argument: str) -> None:
        keywords = [
            self._options.hostname,
            "PIPELINING",
            f"SIZE {self._options.size_limit_octets}",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            "DSN",
            "AUTH PLAIN LOGIN XOAUTH2",
        ]
        if self._context is not None and not self.secure:
            keywords.append("STARTTLS")
        self._greet(argument, "\n".join(keywords))

    def _helo(self, argument: str) -> None:
        self._greet(argument, self._options.hostname)

    def _greet(self, argument: str, text: str) -> None:
        if not argument.strip():
            self._say(501, "5.5.4 Syntax: EHLO or HELO with a name is wanted")
            return
        self._greeted = True
        self._forget()
        self._say(250, text)

    def _starttls(self, _argument: str) -> None:
        if self._context is None or self.secure:
            self._say(502, "5.5.1 STARTTLS is not offered")
            return
        self._say(220, "2.0.0 Ready to start TLS")
        self.start_tls(self._context)

    def _noop(self, _argument: str) -> None:
        self._say(250, "2.0.0 Ok")

    def _vrfy(self, _argument: str) -> None:
        self._say(252, "2.0.0 Send a message and see")

    def _quit(self, _argument: str) -> None:
        self._say(221, "2.0.0 Bye")
        self.close()

    # AUTH (RFC 4954): whoever comes is let in

    def _auth(self, argument: str) -> None:
        mechanism, _, initial = argument.strip().partition(" ")
        steps = {"PLAIN": self._auth_plain, "XOAUTH2": self._auth_xoauth2, "LOGIN": self._auth_login}
        step = steps.get(mechanism.upper())
        if not self._greeted or self._user or self._sender is not None:
            self._say(503, "5.5.1 AUTH may not stand here")
        elif step is None:
            self._say(504, "5.5.4 Unrecognised authentication mechanism")
        elif initial:
            step(initial)
        else:
            self._ask("VXNlcm5hbWU6" if mechanism.upper() == "LOGIN" else "", step)

    def _auth_plain(self, line: str) -> None:
        self._let_in(line, lambda text: text.split("\0")[1])

    def _auth_xoauth2(self, line: str) -> None:
        self._let_in(line, lambda text: text.split("\1")[0].removeprefix("user="))

    def _auth_login(self, line: str) -> None:
        self._ask("UGFzc3dvcmQ6", lambda _password: self._let_in(line, str))

    def _ask(self, challenge: str, step: Callable[[str], None]) -> None:
        self._challenge = step
        self._say(334, challenge)

    def _let_in(self, line: str, name: Callable[[str], str]) -> None:
        self._challenge = None
        try:
            user = name(base64.b64decode(line, validate=True).decode())
        except (binascii.Error, UnicodeDecodeError, IndexError):
            self._say(501, "5.5.2 Cannot decode that response")
            return
        self._user = user or "anonymous"
        self._say(235, "2.7.0 Authentication successful")

    # The mail transaction

    def _mail(self, argument: str) -> None:
        if not self._greeted or self._sender is not None:
            self._say(503, "5.5.1 MAIL may not stand here")
            return
        if argument[:5].upper() != "FROM:":
            self._say(501, "5.5.4 Syntax: MAIL FROM:<address>")
            return
        sender = parameters.read_mail(argument[5:])
        if isinstance(sender, Reply):
            self._reply(sender)
        elif sender.size_octets > self._options.size_limit_octets:
            self._say(552, "5.3.4 Message size exceeds the limit of this server")
        else:
            self._sender = sender
            self._say(250, "2.1.0 Ok")

    def _rcpt(self, argument: str) -> None:
        if self._sender is None:
            self._say(503, "5.5.1 RCPT needs a MAIL before it")
            return
        if argument[:3].upper() != "TO:":
            self._say(501, "5.5.4 Syntax: RCPT TO:<address>")
            return
        recipient = parameters.read_rcpt(argument[3:], utf8=self._sender.utf8)
        if isinstance(recipient, Reply):
            self._reply(recipient)
            return
        refusal = self._receiver.refuse(self._sender.address, recipient.address)
        if refusal is not None:
            self._reply(refusal)
        elif len(self._recipients) >= 1000:
            self._say(452, "4.5.3 Too many recipients")
        else:
            self._recipients.append(recipient)
            self._say(250, "2.1.5 Ok")

    def _data(self, _argument: str) -> None:
        if self._sender is None:
            self._say(503, "5.5.1 DATA needs a MAIL before it")
        elif not self._recipients:
            self._say(554, "5.5.1 No valid recipients")
        else:
            self._in_body = True
            self._say(354, "End data with <CR><LF>.<CR><LF>")

    def _rset(self, _argument: str) -> None:
        self._forget()
        self._say(250, "2.0.0 Ok")

    def _forget(self) -> None:
        self._sender = None
        self._recipients = []
        self._in_body = False
        self._searched = 0
        self._too_long = False

    def _take_body(self, position: int) -> int:
        """Take up the body if its end is there; look only at octets not yet looked at."""
        buffer = self._buffer
        if not self._too_long and buffer.startswith(b".\r\n", position):
            return self._end_body(b"", position + 3)
        end = buffer.find(_END_OF_DATA, position + max(0, self._searched - 4))
        if end >= 0:
            return self._end_body(bytes(memoryview(buffer)[position : end + 2]), end + 5)
        self._searched = len(buffer) - position
        if self._searched > self._options.size_limit_octets:
            del buffer[position:-4]  # enough to know the end by
            self._searched = 4
            self._too_long = True
        return -1

    def _end_body(self, stuffed: bytes, following: int) -> int:
        self.wait_seconds = self._options.latency_seconds
        content = stuffed.removeprefix(b".").replace(b"\r\n.", b"\r\n")  # RFC 5321 §4.5.2
        if self._too_long or len(content) > self._options.size_limit_octets:
            self._say(552, "5.3.4 Message size exceeds the limit of this server")
        else:
            ending = self._receiver.take(self._envelope(content))
            self.wait_seconds += ending.wait_seconds
            if ending.reply is None:
                self.close()
            else:
                self._reply(ending.reply)
        self._forget()
        return following

    def _envelope(self, content: bytes) -> Envelope:
        assert self._sender is not None  # noqa: S101 - DATA was refused without it
        return Envelope(
            queue_id=self._receiver.next_queue_id(),
            sender=self._sender.address,
            recipients=tuple(self._recipients),
            content=content,
            envid=self._sender.envid,
            ret=self._sender.ret,
            utf8=self._sender.utf8,
            user=self._user,
            secure=self.secure,
        )

    _commands: ClassVar[dict[str, Callable[[SmtpConversation, str], None]]] = {
        "EHLO": _ehlo,
        "HELO": _helo,
        "STARTTLS": _starttls,
        "AUTH": _auth,
        "MAIL": _mail,
        "RCPT": _rcpt,
        "DATA": _data,
        "RSET": _rset,
        "NOOP": _noop,
        "VRFY": _vrfy,
        "QUIT": _quit,
    }
