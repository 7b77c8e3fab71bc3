"""How fast to go: back-off, rates, limits for each domain, and a concurrency that halves when a relay asks.

Pure arithmetic. `now` is a number of monotonic seconds, `jitter` a random number in [0, 1): both are
arguments, so a night of retries can be tested in a microsecond.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MINUTE = 60.0
HOUR = 60 * MINUTE


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that grow from `first` by `factor` up to `cap`, each stretched by up to `spread` of itself."""

    first: float
    cap: float
    factor: float = 2.0
    spread: float = 0.25

    def delay(self, failures: int, *, jitter: float) -> float:
        """Return the seconds to wait after the `failures`-th failure in a row, counted from 1.

        Jitter only lengthens a delay: what failed together must not come back together, nor too early.
        """
        # The exponent is bounded, since a float overflows long before an outage that is counted in months
        # ends.
        delay = min(self.cap, self.first * self.factor ** min(max(failures, 1) - 1, 64))
        return delay * (1 + self.spread * jitter)


RETRY = Backoff(first=30 * MINUTE, cap=4 * HOUR)
"""For a deferred delivery: two attempts within the first hour, then ever rarer (RFC 5321 §4.5.4.1)."""

RECONNECT = Backoff(first=1.0, cap=5 * MINUTE)
"""For a relay that cannot be reached. It costs one connection, whatever number of deliveries wait for it."""

ALARM = Backoff(first=15 * MINUTE, cap=2 * HOUR)
"""For a relay that refuses our password: each try may bring the account closer to being locked."""


class TokenBucket:
    """At most `rate` a second in the long run, and at most `burst` at once."""

    __slots__ = ("_at", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float = 1.0) -> None:
        """Start with a full bucket. Raises ValueError if `rate` or `burst` lets nothing through."""
        if not rate > 0 or not burst >= 1:
            raise ValueError(f"a rate of {rate} with bursts of {burst} lets nothing through")
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._at: float | None = None  # when `_tokens` was right; None before the first use

    def take(self, now: float) -> float:
        """Take a token, and return the seconds to wait before using it.

        The bucket may go into debt: whoever takes while it is empty has a place in the queue, so callers need
        no lock and none is overtaken.
        """
        self._refill(now)
        self._tokens -= 1
        return max(0.0, -self._tokens / self.rate)

    def wait(self, now: float) -> float:
        """Return the seconds that `take` would return, without taking anything."""
        self._refill(now)
        return max(0.0, (1 - self._tokens) / self.rate)

    def change(self, rate: float, now: float) -> None:
        """Go on at another `rate`; tokens earned and debts made so far remain."""
        if not rate > 0:
            raise ValueError(f"a rate of {rate} lets nothing through")
        self._refill(now)
        self.rate = rate

    def _refill(self, now: float) -> None:
        if self._at is not None and now > self._at:
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        if self._at is None or now > self._at:
            self._at = now


class DomainRates:
    """A bucket for each recipient domain, made at its first use; only the `capacity` last used are kept.

    `rates` are mails a second by domain, lower case; `default` is for all others, None being no limit. A
    bucket that had time to refill is as good as new, so forgetting one that was not used for long loses
    nothing.
    """

    def __init__(
        self,
        rates: Mapping[str, float],
        *,
        default: float | None = None,
        burst: float = 1.0,
        capacity: int = 10_000,
    ) -> None:
        """Keep the rates. No bucket exists yet."""
        self._rates = dict(rates)
        self._default = default
        self._burst = burst
        self._capacity = capacity
        self._buckets: dict[str, TokenBucket] = {}  # least recently used first

    def __len__(self) -> int:
        """Return how many buckets exist."""
        return len(self._buckets)

    def take(self, domain: str, now: float) -> float:
        """Take a token of `domain`, and return the seconds to wait before using it; 0.0 without a limit."""
        bucket = self._bucket(domain)
        return bucket.take(now) if bucket else 0.0

    def wait(self, domain: str, now: float) -> float:
        """Return the seconds that `take` would return, without taking anything."""
        bucket = self._bucket(domain)
        return bucket.wait(now) if bucket else 0.0

    def _bucket(self, domain: str) -> TokenBucket | None:
        bucket = self._buckets.pop(domain, None)
        if bucket is None:
            rate = self._rates.get(domain, self._default)
            if not rate:
                return None
            bucket = TokenBucket(rate, self._burst)
            if len(self._buckets) >= self._capacity:
                del self._buckets[next(iter(self._buckets))]
        self._buckets[domain] = bucket
        return bucket


class Concurrency:
    """How many connections a relay may have at once.

    It halves when the relay says that it is too much (421, 4.7.x), and finds its way back to `limit` by one
    connection for each quiet `interval`. Signals within `settle` seconds are one: when fifty connections are
    told the same thing at once, that is one reason to halve, not fifty.
    """

    __slots__ = ("_base", "_since", "interval", "limit", "settle")

    def __init__(self, limit: int, *, interval: float = 60.0, settle: float = 5.0) -> None:
        """Start at `limit`."""
        self.limit = limit
        self.interval = interval
        self.settle = settle
        self._base = limit
        self._since: float | None = None  # when it was last told to slow down; None if never

    def allowed(self, now: float) -> int:
        """Return how many connections may be open now, at least 1."""
        if self._since is None:
            return self.limit
        return max(1, min(self.limit, self._base + int((now - self._since) / self.interval)))

    def slow_down(self, now: float) -> None:
        """Halve what is allowed, since the relay asked for less."""
        if self._since is not None and now - self._since < self.settle:
            return
        self._base = max(1, self.allowed(now) // 2)
        self._since = now
