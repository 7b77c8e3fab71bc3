"""The one line of each attempt in the log."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import structlog

from mailbound import logs
from mailbound.database.outcomes import Ended
from mailbound.model import Letter, Outcome, Reply, Result, Verdict

log = structlog.get_logger()

_ACCEPTED = ("delivery", "attempt", "activity", "address", "code", "reply", "duration")


class Sent(Protocol):
    """What was sent, as far as the log tells it."""

    @property
    def letter(self) -> Letter:
        """The letter."""

    @property
    def activity(self) -> str:
        """The activity's name."""


class Teller:
    """Writes the lines; those of letters that were accepted in the same turn of the event loop together."""

    def __init__(self) -> None:
        """Write nothing yet."""
        self._accepted: list[tuple[Any, ...]] = []

    def tell(
        self, sent: Sent, outcome: Outcome, verdict: Verdict | None, ended: Ended, *, seconds: float
    ) -> None:
        """Tell how an attempt ended, and how long it took."""
        if outcome.result is Result.ACCEPTED and outcome.reply is not None:
            if not self._accepted:
                asyncio.get_running_loop().call_soon(self._write)
            self._accepted.append(_accepted(sent.letter, sent.activity, outcome.reply, seconds))
        else:
            _tell(outcome.result, _fields(sent, outcome, verdict, ended) | {"duration": round(seconds, 3)})

    def _write(self) -> None:
        accepted, self._accepted = self._accepted, []
        logs.info_each("delivery.accepted", _ACCEPTED, accepted)


def _accepted(letter: Letter, activity: str, reply: Reply, seconds: float) -> tuple[Any, ...]:
    address, duration = letter.recipient, round(seconds, 3)
    return letter.delivery_id, letter.attempt, activity, address, reply.code, str(reply), duration


def _tell(result: Result, fields: dict[str, Any]) -> None:
    match result:
        case Result.REFUSED:
            log.info("delivery.refused", **fields)
        case Result.DEFERRED:
            log.info("delivery.deferred", **fields)
        case Result.UNKNOWN:
            log.warning("delivery.lost", **fields)
        case Result.WITHDRAWN:
            log.info("delivery.withdrawn", **fields)
        case Result.UNTRIED:
            log.info("delivery.released", **fields)


def _fields(sent: Sent, outcome: Outcome, verdict: Verdict | None, ended: Ended) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "delivery": sent.letter.delivery_id,
        "attempt": sent.letter.attempt,
        "activity": sent.activity,
        "address": sent.letter.recipient,
    }
    if outcome.reply is not None:
        fields["code"] = outcome.reply.code
        fields["reply"] = str(outcome.reply)
    elif outcome.why:
        fields["why"] = outcome.why
    if verdict is not None:
        fields |= {"category": verdict.category, "rule": verdict.rule}
    if ended.settlement is not None and ended.settlement.next_attempt_at is not None:
        fields["next_attempt_at"] = ended.settlement.next_attempt_at.isoformat()
    return fields
