"""A relay as its callers see it: while it is down, one looks and the others wait (RFC 5321 §4.5.4.1)."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Awaitable, Callable

import structlog

from mailbound import pacing
from mailbound.errors import RelayError
from mailbound.model import Outcome, Phase, Result
from mailbound.relay import opening
from mailbound.relay.account import Account
from mailbound.relay.failures import SessionError
from mailbound.relay.session import Session
from mailbound.relay.transaction import LOGGED_OUT

log = structlog.get_logger()

_LONG_SECONDS = 60.0
"""A relay that was away for longer gets its load back step by step: others have waited for it, too."""


class Relay:
    """The relay of one store: where sessions come from, and what is known of its health.

    `down_since` and `retry_at` are monotonic seconds, None while the relay is up; `error` is why it is down.
    With `needs_attention` a person must act: it is tried again all the same, but rarely. `concurrency` tells
    how many sessions the relay bears; a 421 halves it.
    """

    def __init__(
        self,
        account: Account,
        *,
        connections: int = 10,
        reconnect: pacing.Backoff = pacing.RECONNECT,
        alarm: pacing.Backoff = pacing.ALARM,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Know nothing yet: the relay counts as up until it proves otherwise."""
        self.account = account
        self.concurrency = pacing.Concurrency(connections)
        self.down_since: float | None = None
        self.retry_at: float | None = None
        self.error: RelayError | None = None
        self._failures = 0  # in a row
        self._reconnect = reconnect
        self._alarm = alarm
        self._clock = clock
        self._sleep = sleep
        self._looking = asyncio.Lock()  # whoever holds it is the one who looks
        self._context: ssl.SSLContext | None = None

    @property
    def allowed(self) -> int:
        """Return how many sessions there may be now."""
        return self.concurrency.allowed(self._clock())

    @property
    def needs_attention(self) -> bool:
        """Return True if the relay refuses us, so that waiting will not help."""
        return isinstance(self.error, SessionError) and self.error.permanent

    async def connect(self) -> Session:
        """Return a new session, however long it takes.

        While the relay is down, there is one attempt for each step of the back-off, whatever number of
        callers wait. Cancel the call to stop waiting.
        """
        while True:
            if self.down_since is None:
                session = await self.attempt()
            else:
                session = await self.look()
            if session is not None:
                return session

    async def look(self) -> Session | None:
        """Wait until the relay may be tried again, and return a session if it was on us to try and it is there.

        None says that it is down still, or up again: `down_since` tells.
        """
        async with self._looking:
            if self.retry_at is None:
                return None  # it came back while we waited
            await self._sleep(max(0.0, self.retry_at - self._clock()))
            return await self.attempt()

    async def attempt(self) -> Session | None:
        """Return a new session, or None after noting why there is none: the relay is down then."""
        failures = self._failures
        try:
            if self._context is None:
                self._context = await asyncio.to_thread(self.account.context)
            session = await opening.open(self.account, self._context)
        except SessionError as error:
            if error.reply is not None and error.reply.code == 421:
                self.concurrency.slow_down(self._clock())
            if self._failures == failures:  # else another attempt of the same moment was counted already
                self._went_down(error)
            return None
        if self.down_since is not None:
            down_for = self._clock() - self.down_since
            log.info("relay.recovered", host=self.account.host, down_for=down_for)
            if down_for > _LONG_SECONDS:
                self.concurrency.restart(self._clock())
        # A session is no success yet, so `_failures` stays: a relay may greet us and refuse every MAIL.
        self.down_since = self.retry_at = self.error = None
        return session

    def report(self, session: Session, outcome: Outcome) -> None:
        """Learn from how a transaction on `session` ended. Report each one, so that success is known too."""
        if outcome.result is Result.UNKNOWN or self._is_end_of_session(session, outcome):
            return  # the next connection will tell
        if outcome.reply is not None and outcome.reply.code == 421:
            self.concurrency.slow_down(self._clock())
        if outcome.result is not Result.UNTRIED:
            self._failures = 0
        elif self.down_since is None:
            why = str(outcome.reply or outcome.why)
            self._went_down(SessionError(outcome.phase, why, outcome.reply))

    @staticmethod
    def _is_end_of_session(session: Session, outcome: Outcome) -> bool:
        """Return True if the relay ended a used session between letters, as many do after so many of them.

        It may also have forgotten in its midst that we had logged in.
        """
        if outcome.result is not Result.UNTRIED or session.transactions < 2:
            return False
        if outcome.reply is not None and outcome.reply.code in LOGGED_OUT:
            return session.authenticated
        silent = outcome.reply is None or outcome.reply.code == 421
        return silent and outcome.phase is Phase.MAIL

    def _went_down(self, error: SessionError) -> None:
        self._failures += 1
        self.error = error
        # A token may have been about to expire when we got it; a new one is worth one try.
        stale = self.account.token is not None and self._failures == 1
        alarming = error.permanent and not stale
        backoff = self._alarm if alarming else self._reconnect
        now = self._clock()
        delay = backoff.delay(self._failures, jitter=random.random())
        self.down_since = now if self.down_since is None else self.down_since
        self.retry_at = now + delay
        tell = log.error if alarming else log.warning
        tell(
            "relay.failed",
            host=self.account.host,
            phase=str(error.phase),
            why=error.why,
            retry_in=round(delay, 1),
        )
