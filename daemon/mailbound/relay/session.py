"""An open session with a relay, for one letter after another."""

from __future__ import annotations

from mailbound.model import Letter, Outcome, Phase, Reply, Result
from mailbound.relay import body, commands
from mailbound.relay.account import Deadlines
from mailbound.relay.connection import Connection
from mailbound.relay.transaction import Mark, Transaction


class Session:
    """A session after EHLO, TLS and AUTH. It belongs to one task at a time."""

    def __init__(self, connection: Connection, extensions: commands.Extensions, deadlines: Deadlines) -> None:
        """Take an open connection; `relay.open` makes one."""
        self.extensions = extensions
        self.transactions = 0  # how many it was asked for
        self._connection = connection
        self._deadlines = deadlines
        self._busy = False

    @property
    def usable(self) -> bool:
        """Return True while the session can take a letter. An idle session may turn unusable at any time."""
        return not self._connection.closed

    @property
    def why(self) -> str:
        """Return why the session ended, or "" while it has not."""
        return self._connection.why

    async def transact(self, letter: Letter, mark: Mark) -> Outcome:
        """Send `letter`, and return how it ended. Raises what `mark` raises, nothing else.

        `mark` is awaited once the body is written and the relay has all but the final dot. Only if it returns
        True the dot follows; else the connection is closed. A session that turns out to be closed gives
        `UNTRIED`, in the MAIL phase and without a reply: another session may take the letter at once. If the
        caller is cancelled, the connection is closed, for the reply to this letter must not meet the next
        one.
        """
        if self._busy:
            raise RuntimeError("a session runs one transaction at a time")
        self._busy = True
        try:
            return await self._transact(letter, mark)
        except BaseException:
            self.close()
            raise
        finally:
            self._busy = False

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
        """Close the connection at once."""
        self._connection.lose("closed")

    async def _transact(self, letter: Letter, mark: Mark) -> Outcome:
        content = body.with_crlf(letter.content)
        objection = commands.objection(letter, content, self.extensions)
        if objection is not None:
            return objection
        self.transactions += 1
        await self._connection.quiet()  # the RSET of an aborted transaction is still to be answered
        if not self.usable:
            return Outcome(Result.UNTRIED, Phase.MAIL, why=self._connection.why)
        transaction = Transaction(
            self._connection, letter, content, extensions=self.extensions, deadlines=self._deadlines
        )
        return await transaction.run(mark)


class _Farewell:
    """Waits for the reply to QUIT, whatever it is."""

    def answered(self, phase: Phase, reply: Reply) -> None:
        """Be content."""

    def lost(self, phase: Phase, why: str) -> None:
        """Be content."""
