"""One mail transaction: one letter, one recipient, one verdict (RFC 5321 §3.3).

    MAIL ──2yz──> RCPT ──2yz──> DATA ──3yz──> body ──> mark ──> final dot ──2yz──> accepted
      │             │             │             │        │          ├──4yz, 5yz──> deferred, refused
      │             ├─4yz, 5yz────┴──> RSET     │        │          └──silence───> unknown
      └─4yz, 5yz────┼────421, silence───────────┤        └──no──> withdrawn
                    └──> untried <──────────────┘

The first refusal is the verdict. What follows from it (a 503 to RCPT since MAIL was refused) is not the
recipient's, and what breaks after it (a 421, a hung RSET) takes nothing back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from mailbound.model import Letter, Outcome, Phase, Reply, Result
from mailbound.relay import body, commands
from mailbound.relay.account import Deadlines
from mailbound.relay.connection import Connection
from mailbound.status import StatusCode

Mark = Callable[[], Awaitable[bool]]
"""Commits that a letter is about to be in doubt. False if it must not be sent any more."""

_TOO_MANY = StatusCode(5, 5, 3)

LOGGED_OUT = frozenset({530, 535, 454})
"""Whoever wants a login says one of these (RFC 4954 §6), and so does a relay on which ours has expired."""


class Carrier(Protocol):
    """Who sends a letter. `ended` is called exactly once, `ready` before it at most once."""

    def ready(self) -> None:
        """Mark the letter, for the relay has all of it but the final dot; then finish or withdraw."""

    def ended(self, outcome: Outcome) -> None:
        """Learn how the letter ended."""


class Transaction:
    """A transaction on a `connection`, told to its carrier."""

    __slots__ = (
        "_begun",
        "_carrier",
        "_connection",
        "_content",
        "_deadlines",
        "_extensions",
        "_letter",
        "_may_expire",
        "_recipient_accepted",
        "_verdict",
        "over",
    )

    def __init__(
        self,
        connection: Connection,
        letter: Letter,
        carrier: Carrier,
        *,
        extensions: commands.Extensions,
        deadlines: Deadlines,
        may_expire: bool = False,
    ) -> None:
        """Prepare; nothing is written. `may_expire` says that we logged in and that it has held for a letter."""
        self.over = False  # its end was told
        self._connection = connection
        self._letter = letter
        self._carrier = carrier
        self._content = letter.content if letter.clean else body.with_crlf(letter.content)
        self._extensions = extensions
        self._deadlines = deadlines
        self._may_expire = may_expire
        self._begun = False  # MAIL was accepted: the relay holds an envelope
        self._recipient_accepted = False
        self._verdict: Outcome | None = None

    # What the session does with it

    def begin(self) -> None:
        """Send the envelope."""
        if self._connection.closed:
            self._verdict = Outcome(Result.UNTRIED, Phase.MAIL, why=self._connection.why)
            self._conclude()
            return
        if self._extensions.pipelining:
            self._ask(Phase.MAIL, Phase.RCPT, Phase.DATA)
        else:
            self._ask(Phase.MAIL)

    def finish(self) -> None:
        """Send the final dot: the letter is marked."""
        if self._connection.closed:
            self.abandon()
        else:
            self._ask(Phase.FINAL_DOT)

    def withdraw(self) -> None:
        """End the connection: the letter must not be sent any more."""
        self._connection.lose("a letter was withdrawn")
        self._verdict = Outcome(Result.WITHDRAWN, Phase.BODY, why="the mark was refused")
        self._conclude()

    def abandon(self) -> None:
        """Conclude that the connection did not survive the body: the final dot was never sent."""
        if self._verdict is None:
            self._verdict = self._cut_short()
        self._conclude()

    # What the connection tells it

    def answered(self, phase: Phase, reply: Reply) -> None:
        """Take one reply, and do what follows from it."""
        match phase:
            case Phase.MAIL:
                self._mail_answered(reply)
            case Phase.RCPT:
                self._rcpt_answered(reply)
            case Phase.DATA:
                self._data_answered(reply)
            case Phase.FINAL_DOT if self._verdict is None:
                self._refused_or_accepted(reply)
            case Phase.FINAL_DOT:  # it was a lone dot
                self._reset(reply)
                self._conclude()
            case _:
                if reply.code // 100 != 2:
                    self._connection.lose(f"the relay answered RSET with {reply}")

    def lost(self, phase: Phase, why: str) -> None:
        """Conclude without a reply; a verdict already read stays."""
        if self._verdict is None:
            # Once the final dot may be on the wire, the relay may hold the message.
            result = Result.UNKNOWN if phase is Phase.FINAL_DOT else Result.UNTRIED
            self._verdict = Outcome(result, phase, self._connection.last_words, why)
        self._conclude()

    # Step by step

    def _mail_answered(self, reply: Reply) -> None:
        if reply.code // 100 == 2:
            self._begun = True
            self._go_on(Phase.RCPT)
        else:
            self._refuse(Phase.MAIL, reply)

    def _rcpt_answered(self, reply: Reply) -> None:
        if reply.code // 100 != 2:
            self._refuse(Phase.RCPT, reply)
        elif self._begun:
            self._recipient_accepted = True
            self._go_on(Phase.DATA)
        else:
            self._break_off("the relay refused MAIL and accepted RCPT")

    def _data_answered(self, reply: Reply) -> None:
        if reply.code // 100 != 3:
            self._refuse(Phase.DATA, reply)
        elif self._verdict is None:
            wire = self._content if self._letter.clean else body.stuffed(self._content)
            self._connection.pour(wire, self._poured, seconds=self._deadlines.block)
        else:
            # No recipient, yet the relay waits for a message: it gets an empty one (RFC 2920 §3.1). Had it a
            # recipient, `_rcpt_answered` would have broken off: an empty message must reach nobody.
            self._ask(Phase.FINAL_DOT)

    def _poured(self) -> None:
        if self._connection.closed:
            self.abandon()
        else:
            self._carrier.ready()

    def _refused_or_accepted(self, reply: Reply) -> None:
        if reply.code // 100 == 2:
            self._verdict = Outcome(Result.ACCEPTED, Phase.FINAL_DOT, reply)
            self._conclude()
        else:
            self._refuse(Phase.FINAL_DOT, reply)

    def _refuse(self, phase: Phase, reply: Reply) -> None:
        """Keep the first refusal as the verdict, and leave the relay ready for another transaction."""
        if self._verdict is None:
            self._verdict = self._judge(phase, reply)
        if reply.code == 421:
            self._break_off(f"the relay closes the session: {reply}")
        elif self._logged_out(reply):
            self._break_off(f"the login has expired: {reply}")
        elif reply.code // 100 not in (4, 5):
            self._break_off(f"the relay answered {phase} with {reply}")
        elif phase is Phase.FINAL_DOT:
            self._conclude()  # the relay has forgotten the envelope (RFC 5321 §4.1.1.4)
        elif phase is Phase.DATA or not self._extensions.pipelining:
            self._reset(reply)
            self._conclude()

    def _judge(self, phase: Phase, reply: Reply) -> Outcome:
        if self._logged_out(reply):
            return Outcome(Result.UNTRIED, phase, reply, "the login has expired")
        return judge(phase, reply)

    def _logged_out(self, reply: Reply) -> bool:
        """Return whether it speaks of our login. In a new session it may mean this letter: then it is a verdict."""
        return self._may_expire and reply.code in LOGGED_OUT

    def _reset(self, reply: Reply) -> None:
        """Abandon the envelope, if there is one. Nobody waits for the reply: it decides nothing."""
        if reply.code == 421:
            self._break_off(f"the relay closes the session: {reply}")
        elif self._begun:
            self._ask(Phase.RSET)

    # How

    def _ask(self, *phases: Phase) -> None:
        for phase in phases:
            self._connection.expect(phase, self._deadlines.of(phase, size=len(self._content)), self)
        self._connection.write(b"".join(map(self._line, phases)))

    def _line(self, phase: Phase) -> bytes:
        match phase:
            case Phase.MAIL:
                return commands.mail(self._letter, self._content, self._extensions)
            case Phase.RCPT:
                return commands.rcpt(self._letter, self._extensions)
            case Phase.DATA:
                return b"DATA\r\n"
            case Phase.FINAL_DOT:
                return body.TERMINATOR
            case _:
                return b"RSET\r\n"

    def _go_on(self, phase: Phase) -> None:
        """Ask the next thing, unless it was asked with the group."""
        if not self._extensions.pipelining:
            self._ask(phase)

    def _break_off(self, why: str) -> None:
        self._connection.lose(why)
        self._conclude()

    def _conclude(self) -> None:
        if not self.over and self._verdict is not None:
            self.over = True
            self._carrier.ended(self._verdict)

    def _cut_short(self) -> Outcome:
        """Return the outcome of a body without a final dot."""
        words = self._connection.last_words
        if words and words.code // 100 in (4, 5):
            return judge(Phase.BODY, words)  # some relays refuse a body before its end
        return Outcome(Result.UNTRIED, Phase.BODY, words, self._connection.why)


def judge(phase: Phase, reply: Reply) -> Outcome:
    """Return what a `reply` that is no success means for the letter, by its first digit (RFC 5321 §4.2.1)."""
    kind = reply.code // 100
    if kind not in (4, 5):
        result = Result.UNKNOWN if phase is Phase.FINAL_DOT else Result.UNTRIED
        return Outcome(result, phase, reply, "the reply does not fit the command")
    if phase is Phase.MAIL:
        return Outcome(Result.UNTRIED, phase, reply, "the relay does not take mail from us")
    if reply.code == 421:
        result = Result.DEFERRED if phase is Phase.FINAL_DOT else Result.UNTRIED
        return Outcome(result, phase, reply, "the relay closes the session")
    if phase is Phase.RCPT and reply.code == 552 and StatusCode.of_reply(reply) in {None, _TOO_MANY}:
        # In old words: too many recipients (RFC 5321 §4.5.3.1.10). With a code of its own it means what that says.
        return Outcome(Result.DEFERRED, phase, reply)
    return Outcome(Result.REFUSED if kind == 5 else Result.DEFERRED, phase, reply)
