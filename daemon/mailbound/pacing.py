"""How fast to go: back-off, rates, limits for each domain, and a concurrency that halves when a relay asks.

Pure arithmetic. `now` is a number of monotonic seconds, `jitter` a random number in [0, 1): both are
arguments, so a night of retries can be tested in a microsecond.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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

    def __init__(self, rate: float, burst: float = 1.0, *, owing: float = 0.0) -> None:
        """Start with a full bucket, less what `owing` seconds would earn.

        Raises ValueError if `rate` or `burst` lets nothing through.
        """
        if not rate > 0 or not burst >= 1:
            raise ValueError(f"a rate of {rate} with bursts of {burst} lets nothing through")
        self.rate = rate
        self.burst = burst
        self._tokens = burst - owing * rate
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

    def change(self, rate: float, now: float, *, burst: float | None = None) -> None:
        """Go on at another `rate`, perhaps with another `burst`; tokens earned and debts made so far remain."""
        if not rate > 0 or not (burst is None or burst >= 1):
            raise ValueError(f"a rate of {rate} with bursts of {burst} lets nothing through")
        self._refill(now)
        self.rate = rate
        self.burst = self.burst if burst is None else burst
        self._tokens = min(self._tokens, self.burst)

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
        seconds: float = 0.0,
        capacity: int = 10_000,
    ) -> None:
        """Keep the rates. No bucket exists yet; each will give at once what it earns in so many `seconds`."""
        self._rates = dict(rates)
        self._default = default
        self._seconds = seconds
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

    def change(self, rates: Mapping[str, float], now: float, *, default: float | None = None) -> None:
        """Go on at other rates; debts made so far remain, and a domain that has no limit any more has none."""
        self._rates = dict(rates)
        self._default = default
        for domain, bucket in list(self._buckets.items()):
            rate = self._rates.get(domain, default)
            if rate:
                bucket.change(rate, now, burst=self._burst(rate))
            else:
                del self._buckets[domain]

    def _bucket(self, domain: str) -> TokenBucket | None:
        bucket = self._buckets.pop(domain, None)
        if bucket is None:
            rate = self._rates.get(domain, self._default)
            if not rate:
                return None
            bucket = TokenBucket(rate, self._burst(rate))
            if len(self._buckets) >= self._capacity:
                del self._buckets[next(iter(self._buckets))]
        self._buckets[domain] = bucket
        return bucket

    def _burst(self, rate: float) -> float:
        return max(1.0, rate * self._seconds)


class Concurrency:
    """How many connections a relay may have at once.

    It halves when the relay says that it is too much (421, 4.7.x), and probes its way back to `limit`: each quiet
    `interval` adds a tenth of it, at least one connection. When fifty connections are told the same thing, that is
    one reason to halve, not fifty: a signal counts only if it comes `settle` seconds after the last one that did,
    and about a transaction that began after it.

    After an outage it begins with one connection, and doubles every `settle` seconds.
    """

    __slots__ = ("_base", "_restarted", "_since", "interval", "limit", "settle")

    def __init__(self, limit: int, *, interval: float = 60.0, settle: float = 5.0) -> None:
        """Start at `limit`."""
        self.limit = limit
        self.interval = interval
        self.settle = settle
        self._base = limit
        self._since: float | None = None  # when it was last told to slow down; None if never
        self._restarted = -math.inf  # when the last outage was over

    def allowed(self, now: float) -> int:
        """Return how many connections may be open now, at least 1."""
        doublings = (now - self._restarted) / self.settle
        return min(self._borne(now), 1 << int(min(max(doublings, 0.0), 30.0)))

    def restart(self, now: float) -> None:
        """Begin with one connection, since the relay was away."""
        self._restarted = now

    def slow_down(self, now: float, *, begun: float | None = None) -> None:
        """Halve what is allowed, since the relay asked for less, in a transaction that began at `begun`."""
        if self._since is not None:
            if now - self._since < self.settle:
                return
            if begun is not None and begun < self._since:
                return  # it was under way when there still were twice as many
        self._base = max(1, self.allowed(now) // 2)
        self._since = now
        self._restarted = -math.inf

    def change(self, limit: int, now: float) -> None:
        """Go on with another `limit`; what the relay asked for is not forgotten."""
        if limit == self.limit:
            return
        allowed = self._borne(now)
        self._base, self._since = (allowed, now) if allowed < self.limit else (limit, None)
        self.limit = limit

    def _borne(self, now: float) -> int:
        if self._since is None:
            return self.limit
        quiet = max(0, int((now - self._since) / self.interval))
        return max(1, min(self.limit, self._base + quiet * max(1, self.limit // 10)))


# --- many nodes, many runs --------------------------------------------------------------------------------


def share(rate: float, nodes: int) -> float:
    """Return the part of a rate that is one node's, of so many that are alive; at least one is."""
    return rate / max(1, nodes)


@dataclass(frozen=True, slots=True)
class Rates:
    """What a store may send, on all nodes together, in messages a second; 0 is no limit."""

    relay: float = 0.0
    domain: float = 0.0  # to any one recipient domain that is not named
    domains: Mapping[str, float] = field(default_factory=dict)


class Pace:
    """How fast this node sends for one store: its equal share of every rate.

    Kept through a reload, since a new one would have forgotten what was sent a moment ago.
    """

    def __init__(self, connections: int) -> None:
        """Limit nothing yet but the number of connections, which are each node's own."""
        self.rates = Rates()
        self.nodes = 1
        self.concurrency = Concurrency(connections)
        self.crowded: tuple[str, float] | None = None  # the domain that last had to wait, and until when
        self._relay: TokenBucket | None = None
        self._domains = DomainRates({})  # gives each recipient a turn
        self._gates = DomainRates(
            {}, seconds=1.0
        )  # bears it that one comes a little late, but not that many do

    def change(self, rates: Rates, nodes: int, now: float, *, owing: float = 0.0) -> None:
        """Go on with other rates or another number of nodes; debts remain.

        A node that comes to others owes the relay some seconds, until they have heard of it and take less.
        """
        self.rates, self.nodes = rates, nodes
        relay = share(rates.relay, nodes)
        if not relay:
            self._relay = None
        elif self._relay is None:
            self._relay = TokenBucket(relay, max(1.0, relay / 10), owing=owing)
        else:
            self._relay.change(relay, now, burst=max(1.0, relay / 10))
        domains = {domain: share(rate, nodes) for domain, rate in rates.domains.items()}
        for limits in (self._domains, self._gates):
            limits.change(domains, now, default=share(rates.domain, nodes) or None)

    def take(self, now: float) -> float:
        """Take a token of the relay, and return the seconds to wait before using it; 0.0 without a limit."""
        return self._relay.take(now) if self._relay else 0.0

    def take_domain(self, domain: str, now: float) -> float:
        """Take a token of a recipient's domain, and return the seconds to wait before using it."""
        wait = self._domains.take(domain, now)
        if wait:
            self.crowded = domain, now + wait
        return wait

    def admit(self, domain: str, now: float) -> float:
        """Let a recipient go whose turn it is, and return 0.0; or return the seconds until one may go again.

        Turns that were missed for a while may come all at once. Whatever the reason, a domain gets in any span of time
        what its rate gives, and a second's worth.
        """
        wait = self._gates.wait(domain, now)
        if not wait:
            self._gates.take(domain, now)
        return wait

    def wait(self, now: float) -> float:
        """Return the seconds until the relay's next token, without taking it: more than 0 while the rate holds."""
        return self._relay.wait(now) if self._relay else 0.0


class Turns:
    """Which runs may claim how much: equal shares for those that have work, whatever number of others is open.

    A run that gave less than it was asked for is dry: it leaves its share to the others, and is asked again after
    `rest` seconds. So a run of ten recipients gets its turn within one round of a run of a million, and a hundred
    runs that wait for their retries slow down nobody.
    """

    def __init__(self, *, rest: float = 0.5) -> None:
        """Know of no run yet."""
        self._rest = rest
        self._dry: dict[int, float] = {}  # by run, when it was found to be so
        self._asked: dict[int, int] = {}  # by run, its place in the order of those asked
        self._count = 0

    def shares(self, runs: Sequence[int], room: int, now: float) -> list[tuple[int, int]]:
        """Return the runs to claim from now, in order, and how many deliveries of each.

        Whoever was asked longest ago comes first, and no run comes first twice running. Where there is less room
        than runs, some wait for the next round.
        """
        self._dry = {run: since for run, since in self._dry.items() if run in runs}
        self._asked = {run: place for run, place in self._asked.items() if run in runs}
        ready = [run for run in runs if now - self._dry.get(run, -math.inf) >= self._rest]
        chosen = sorted(ready, key=lambda run: self._asked.get(run, 0))[: max(0, room)]
        if not chosen:
            return []
        for run in chosen[1:] + chosen[:1]:
            self._count += 1
            self._asked[run] = self._count
        each, more = divmod(room, len(chosen))
        return [(run, each + (place < more)) for place, run in enumerate(chosen)]

    def claimed(self, run: int, asked: int, got: int, now: float) -> None:
        """Remember what a claim brought."""
        if got < asked:
            self._dry[run] = now
        else:
            self._dry.pop(run, None)
