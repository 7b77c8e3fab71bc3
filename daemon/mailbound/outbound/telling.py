"""The one line of each attempt in the log."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from mailbound import logs
from mailbound.database.outcomes import Ended
from mailbound.model import Letter, Outcome, Result, Verdict

log = structlog.get_logger()

_ACCEPTED = ("delivery", "attempt", "activity", "address", "code", "reply", "duration")


_TOGETHER_SECONDS = 0.005


class Teller:
    """Writes the lines; those of letters that are accepted within a few milliseconds together."""

    def __init__(self) -> None:
        """Write nothing yet."""
        self._accepted: list[tuple[Any, ...]] = []

    def accepted(self, letter: Letter, activity: str, code: int, reply: str, *, seconds: float) -> None:
        """Tell that a letter was accepted, and how long that took."""
        if not self._accepted:
            asyncio.get_running_loop().call_later(_TOGETHER_SECONDS, self.flush)
        duration = round(seconds, 3)
        self._accepted.append(
            (letter.delivery_id, letter.attempt, activity, letter.recipient, code, reply, duration)
        )

    def ended(
        self,
        letter: Letter,
        activity: str,
        outcome: Outcome,
        verdict: Verdict | None,
        ended: Ended,
        *,
        seconds: float,
    ) -> None:
        """Tell how an attempt ended that was not accepted."""
        fields = _fields(letter, activity, outcome, verdict, ended) | {"duration": round(seconds, 3)}
        match outcome.result:
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

    def flush(self) -> None:
        """Write what was told and waits for others."""
        accepted, self._accepted = self._accepted, []
        logs.info_each("delivery.accepted", _ACCEPTED, accepted)


def _fields(
    letter: Letter, activity: str, outcome: Outcome, verdict: Verdict | None, ended: Ended
) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "delivery": letter.delivery_id,
        "attempt": letter.attempt,
        "activity": activity,
        "address": letter.recipient,
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
