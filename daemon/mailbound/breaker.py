"""The circuit breaker of a run: when so much goes wrong that our own side is likelier to be at fault than theirs."""

from __future__ import annotations

from mailbound.config import Breaker


def trips(*, blame: int, dead: int, settled: int, limits: Breaker) -> str | None:
    """Return why a run must halt, or None.

    `blame` counts failures that blame us, `dead` those that say for good that an address is dead, `settled` the
    deliveries of the run that were tried.
    """
    if blame >= limits.blame_count and blame >= limits.blame_share * settled:
        return f"{blame} of {settled} deliveries failed with a reply that blames us"
    if dead >= limits.bounce_count and dead >= limits.bounce_share * settled:
        return f"{dead} of {settled} addresses are said to be dead"
    return None
