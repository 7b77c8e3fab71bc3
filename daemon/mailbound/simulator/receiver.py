"""What becomes of a message that the simulated relay takes: it is counted, remembered and answered.

Counters, the greylist and the timers of reports to come are here; `behaviour` says what a recipient does, and
`reports` how that is told.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from mailbound.model import Reply
from mailbound.simulator import behaviour, reports
from mailbound.simulator.behaviour import Answer, Behaviour
from mailbound.simulator.envelope import Envelope, Recipient
from mailbound.simulator.maildrop import Maildrop
from mailbound.simulator.options import Options
from mailbound.simulator.reports.notice import Notice

_GREYLISTED = Reply(
    450, "4.2.0 <{recipient}>: Recipient address rejected: Greylisted, please try again later"
)


@dataclass(frozen=True, slots=True)
class Ending:
    """How the relay answers the final dot: with a reply or, if that is None, by hanging up."""

    reply: Reply | None
    wait_seconds: float = 0.0


class Receiver:
    """The recipients of the simulated world, and the post office that carries their answers."""

    def __init__(
        self, options: Options, maildrop: Maildrop, on_accept: Callable[[Envelope], None] | None
    ) -> None:
        """Begin with nothing received; answers will fall into `maildrop`."""
        self.accepted = 0  # messages taken
        self.refused = 0  # replies of 4yz or 5yz that speak of a recipient or a message
        self.reports = 0  # mails that fell into the maildrop
        self.messages: deque[Envelope] = deque(maxlen=options.keep)
        self._options = options
        self._maildrop = maildrop
        self._on_accept = on_accept
        self._greylist: set[tuple[str, str]] = set()
        self._random = random.Random(options.seed)
        self._queued = 0
        self._timers: set[asyncio.TimerHandle] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def pending(self) -> int:
        """Return how many answers are still to come."""
        return len(self._timers)

    async def quiet(self) -> None:
        """Wait until no answer is still to come."""
        await self._quiet.wait()

    def stop(self) -> None:
        """Forget the answers that are still to come."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._quiet.set()

    def next_queue_id(self) -> str:
        """Return a new name for a message."""
        self._queued += 1
        return f"{self._queued:010X}"

    def refuse(self, sender: str, address: str) -> Reply | None:
        """Return the reply that refuses a recipient, or None to take it."""
        its = self._behaviour(address)
        refusal = its.at_rcpt
        if its.greylisted:
            # A return path has its own token for each message and attempt: it is the base that comes again.
            known = (_base(sender).lower(), address.lower())
            if known not in self._greylist:
                self._greylist.add(known)
                refusal = _GREYLISTED
        if refusal is None:
            return None
        self.refused += 1
        return Reply(refusal.code, behaviour.fill(refusal.text, address))

    def take(self, envelope: Envelope) -> Ending:
        """Take a message or not, and return how that is answered. The worst of its recipients decides."""
        theirs = [(recipient, self._behaviour(recipient.address)) for recipient in envelope.recipients]
        for recipient, its in theirs:
            if its.at_end is not None:
                self.refused += 1
                return Ending(Reply(its.at_end.code, behaviour.fill(its.at_end.text, recipient.address)))
        if any(its.loses for _, its in theirs):
            return Ending(None)
        self._accept(envelope)
        for recipient, its in theirs:
            for answer in its.answers:
                self._answer_later(answer, envelope, recipient)
        fails = self._options.fail_final > 0 and self._random.random() < self._options.fail_final
        if fails or any(its.hangs_up for _, its in theirs):
            return Ending(None)
        slow = any(its.slow for _, its in theirs)
        reply = Reply(250, f"2.0.0 Ok: queued as {envelope.queue_id}")
        return Ending(reply, self._options.slow_seconds if slow else 0.0)

    def _behaviour(self, address: str) -> Behaviour:
        return behaviour.behave(address, bounce_rate=self._options.bounce_rate, seed=self._options.seed)

    def _accept(self, envelope: Envelope) -> None:
        self.accepted += 1
        self.messages.append(envelope)
        if self._on_accept is not None:
            self._on_accept(envelope)

    def _answer_later(self, answer: Answer, envelope: Envelope, recipient: Recipient) -> None:
        if not reports.is_due(answer, envelope, recipient):
            return

        def answer_now() -> None:
            self._timers.discard(timer)
            self._answer(answer, envelope, recipient)
            if not self._timers:
                self._quiet.set()

        delay = self._options.delay_seconds * answer.after
        timer = asyncio.get_running_loop().call_later(delay, answer_now)
        self._timers.add(timer)
        self._quiet.clear()

    def _answer(self, answer: Answer, envelope: Envelope, recipient: Recipient) -> None:
        notice = Notice(
            answer=answer,
            envelope=envelope,
            recipient=recipient,
            relay=self._options.hostname,
            at=datetime.now(UTC),
        )
        content = reports.write(notice, self._options.form)
        if content is not None:
            self.reports += 1
            self._maildrop.put(content)


def _base(sender: str) -> str:
    """Return a return path without its token: `bounces@example.com` for `bounces+token@example.com`."""
    local, _, domain = sender.rpartition("@")
    return f"{local.partition('+')[0]}@{domain}"
