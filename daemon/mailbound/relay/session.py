"""An open session with a relay, for one letter after another.

Letters overlap by half: the final dot of one and the envelope of the next travel together (RFC 2920), so a letter
costs one round trip. Without PIPELINING the next one begins when the last one is answered.
"""

from __future__ import annotations

import asyncio

from mailbound.model import Letter, Outcome, Phase, Reply
from mailbound.relay import commands
from mailbound.relay.account import Deadlines
from mailbound.relay.connection import Connection
from mailbound.relay.transaction import Carrier, Mark, Transaction


class Session:
    """A session after EHLO, TLS and AUTH. It belongs to one carrier at a time."""

    def __init__(
        self,
        connection: Connection,
        extensions: commands.Extensions,
        deadlines: Deadlines,
        *,
        authenticated: bool = False,
    ) -> None:
        """Take an open connection; `relay.open` makes one."""
        self.extensions = extensions
        self.authenticated = authenticated  # with a user name
        self.transactions = 0  # how many were begun
        self._connection = connection
        self._deadlines = deadlines
        self._open: Transaction | None = None  # the one that has not sent its final dot

    @property
    def usable(self) -> bool:
        """Return True while the session can take a letter. An idle session may turn unusable at any time."""
        return not self._connection.closed

    @property
    def why(self) -> str:
        """Return why the session ended, or "" while it has not."""
        return self._connection.why

    def objection(self, letter: Letter) -> Outcome | None:
        """Return how `letter` would end for certain, or None if the relay should be asked."""
        return commands.objection(letter, letter.content, self.extensions)

    def begin(self, letter: Letter, carrier: Carrier) -> None:
        """Announce `letter`, and write its body once the relay wants it.

        `carrier` hears of it, perhaps before this returns: `ready` when the relay has all but the final dot, `ended`
        when it is known how the letter ended. A session that turns out to be closed gives `UNTRIED`, in the MAIL
        phase and without a reply: another session may take the letter at once. Raises RuntimeError while another
        letter has not had its final dot.
        """
        if self._open is not None and not self._open.over:
            raise RuntimeError("a session takes the next letter after the final dot of the last one")
        self._open = Transaction(
            self._connection,
            letter,
            carrier,
            extensions=self.extensions,
            deadlines=self._deadlines,
            may_expire=self.authenticated and self.transactions > 0,
        )
        self.transactions += 1
        if self.extensions.pipelining:
            self._open.begin()
        else:
            self._connection.when_quiet(self._open.begin)

    def finish(self) -> None:
        """Send the final dot of the letter that is ready; another one may begin at once."""
        transaction, self._open = self._open, None
        if transaction is not None:
            transaction.finish()

    def withdraw(self) -> None:
        """Close the connection in place of a final dot: a DATA cannot be taken back in any other way."""
        transaction, self._open = self._open, None
        if transaction is not None:
            transaction.withdraw()

    async def transact(self, letter: Letter, mark: Mark) -> Outcome:
        """Send `letter` alone, and return how it ended. Raises what `mark` raises, nothing else.

        `mark` is awaited once the relay has all but the final dot. Only if it returns True the dot follows. If the
        caller is cancelled, the connection is closed, for the reply to this letter must not meet the next one.
        """
        objection = self.objection(letter)
        if objection is not None:
            return objection
        waiting = _Waiting()
        self.begin(letter, waiting)
        try:
            await waiting.turn
            if waiting.outcome is None:
                waiting.turn = asyncio.get_running_loop().create_future()
                if await mark():
                    self.finish()
                else:
                    self.withdraw()
                await waiting.turn
        except BaseException:
            self.close()
            raise
        assert waiting.outcome is not None  # noqa: S101 - the second turn is the end
        return waiting.outcome

    async def quit(self) -> None:
        """Say QUIT, and close the connection. Never raises for what the relay does: nothing depends on it."""
        await self._connection.quiet()
        if not self.usable:
            return
        self._connection.expect(Phase.QUIT, self._deadlines.quit, _Farewell())
        self._connection.write(b"QUIT\r\n")
        await self._connection.quiet()
        await self._connection.finish(seconds=self._deadlines.quit)

    def close(self) -> None:
        """Close the connection at once. A letter that is ready then ends untried: its final dot was not sent."""
        self._connection.lose("closed")
        if self._open is not None:
            self._open.abandon()


class _Waiting:
    """Carries one letter for a coroutine."""

    def __init__(self) -> None:
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.outcome: Outcome | None = None

    def ready(self) -> None:
        if not self.turn.done():
            self.turn.set_result(None)

    def ended(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.ready()


class _Farewell:
    """Waits for the reply to QUIT, whatever it is."""

    def answered(self, phase: Phase, reply: Reply) -> None:
        """Be content."""

    def lost(self, phase: Phase, why: str) -> None:
        """Be content."""
