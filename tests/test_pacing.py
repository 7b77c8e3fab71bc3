import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbound import pacing


def test_a_deferred_delivery_is_tried_twice_in_its_first_hour_and_then_ever_rarer():
    delays = [pacing.RETRY.delay(failures, jitter=0.999) for failures in range(1, 8)]
    attempts = [0, *itertools.accumulate(delays)]
    assert sum(at <= pacing.HOUR for at in attempts) == 2
    assert delays == sorted(delays)


@given(failures=st.integers(-1, 10**6), jitter=st.floats(0, 1, exclude_max=True))
def test_jitter_only_lengthens_a_delay_and_the_cap_holds(failures, jitter):
    for backoff in (pacing.RETRY, pacing.RECONNECT, pacing.ALARM):
        delay = backoff.delay(failures, jitter=jitter)
        assert backoff.delay(failures, jitter=0.0) <= delay <= backoff.cap * (1 + backoff.spread)
        assert delay >= backoff.first


@pytest.mark.parametrize(
    ("failures", "delay"), [(1, 10.0), (2, 20.0), (3, 40.0), (4, 60.0), (5, 60.0)], ids=str
)
def test_delays_double_up_to_the_cap(failures, delay):
    assert pacing.Backoff(first=10.0, cap=60.0).delay(failures, jitter=0.0) == delay


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0.5), (float("nan"), 1)])
def test_a_bucket_that_lets_nothing_through_is_refused(rate, burst):
    with pytest.raises(ValueError, match="lets nothing through"):
        pacing.TokenBucket(rate, burst)


def test_a_bucket_gives_its_burst_at_once_and_then_one_in_its_time():
    bucket = pacing.TokenBucket(2.0, burst=3)
    assert [bucket.take(100.0) for _ in range(5)] == [0.0, 0.0, 0.0, 0.5, 1.0]
    assert bucket.take(101.0) == 0.5
    assert [bucket.take(1000.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


@given(
    rate=st.floats(0.01, 1000),
    burst=st.integers(1, 20),
    steps=st.lists(st.floats(0, 10), min_size=1, max_size=200),
)
def test_no_span_of_time_sees_more_than_its_rate_and_one_burst(rate, burst, steps):
    bucket = pacing.TokenBucket(rate, burst)
    used = sorted(now + bucket.take(now) for now in itertools.accumulate(steps))
    for (i, first), (j, last) in itertools.combinations(enumerate(used), 2):
        assert j - i + 1 <= burst + (last - first) * rate + 1e-6


def test_looking_at_a_bucket_takes_nothing():
    bucket = pacing.TokenBucket(1.0)
    assert [bucket.wait(0.0), bucket.wait(0.0), bucket.take(0.0), bucket.wait(0.0)] == [0.0, 0.0, 0.0, 1.0]
    assert bucket.wait(0.25) == 0.75


def test_a_clock_that_goes_back_earns_nothing():
    bucket = pacing.TokenBucket(1.0)
    bucket.take(100.0)
    assert bucket.wait(50.0) == 1.0
    assert bucket.wait(100.5) == 0.5


def test_a_changed_rate_keeps_what_was_earned():
    bucket = pacing.TokenBucket(1.0)
    bucket.take(0.0)
    bucket.change(10.0, 0.5)
    assert bucket.wait(0.5) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="lets nothing through"):
        bucket.change(0.0, 1.0)


def test_each_domain_has_a_rate_of_its_own():
    rates = pacing.DomainRates({"slow.example": 1.0, "free.example": 0.0}, default=10.0)
    for _ in range(2):
        waits = {
            domain: rates.take(domain, 0.0) for domain in ("slow.example", "other.example", "free.example")
        }
    assert waits == {"slow.example": 1.0, "other.example": 0.1, "free.example": 0.0}
    assert rates.wait("slow.example", 0.0) == 2.0
    assert rates.wait("free.example", 0.0) == 0.0


def test_domains_without_a_limit_leave_no_trace():
    rates = pacing.DomainRates({})
    assert [rates.take(f"{number}.example", 0.0) for number in range(100)] == [0.0] * 100
    assert len(rates) == 0


def test_only_the_domains_last_used_are_remembered():
    rates = pacing.DomainRates({}, default=1.0, capacity=3)
    for domain in ("a", "b", "c", "a", "d"):
        rates.take(domain, 0.0)
    assert len(rates) == 3
    assert rates.wait("a", 0.0) == 2.0
    assert rates.wait("b", 0.0) == 0.0  # forgotten, since it was used longest ago


def test_concurrency_halves_at_a_signal_and_finds_its_way_back_one_by_one():
    concurrency = pacing.Concurrency(20, interval=60.0, settle=5.0)
    assert concurrency.allowed(0.0) == 20
    concurrency.slow_down(100.0)
    assert [concurrency.allowed(now) for now in (100.0, 159.9, 160.0, 220.0, 700.0, 10_000.0)] == [
        10,
        10,
        11,
        12,
        20,
        20,
    ]
    concurrency.slow_down(160.0)
    assert concurrency.allowed(160.0) == 5


def test_a_storm_of_signals_is_one():
    concurrency = pacing.Concurrency(50, settle=5.0)
    for _ in range(50):
        concurrency.slow_down(100.0)
    assert concurrency.allowed(100.0) == 25


def test_concurrency_never_falls_below_one():
    concurrency = pacing.Concurrency(8)
    for now in range(0, 1000, 10):
        concurrency.slow_down(float(now))
        assert concurrency.allowed(float(now)) >= 1
    assert concurrency.allowed(990.0) == 1
