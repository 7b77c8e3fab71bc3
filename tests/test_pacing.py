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


def test_concurrency_halves_at_a_signal_and_finds_its_way_back_step_by_step():
    concurrency = pacing.Concurrency(20, interval=60.0, settle=5.0)
    assert concurrency.allowed(0.0) == 20
    concurrency.slow_down(100.0)
    moments = (100.0, 159.9, 160.0, 220.0, 700.0, 10_000.0)
    assert [concurrency.allowed(now) for now in moments] == [10, 10, 12, 14, 20, 20]
    concurrency.slow_down(160.0)
    assert concurrency.allowed(160.0) == 6


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


def test_each_quiet_interval_adds_a_tenth_so_that_any_limit_comes_back_in_time():
    for limit in (3, 10, 50, 400):
        concurrency = pacing.Concurrency(limit, interval=60.0)
        concurrency.slow_down(0.0)
        allowed = [concurrency.allowed(now) for now in range(0, 601, 60)]
        assert allowed[0] == max(1, limit // 2)
        assert allowed == sorted(allowed)
        assert allowed[-1] == limit


def test_a_signal_about_what_was_under_way_before_the_last_one_is_no_new_one():
    concurrency = pacing.Concurrency(40, settle=5.0)
    concurrency.slow_down(100.0, begun=90.0)
    concurrency.slow_down(110.0, begun=99.0)  # its reply took its time
    assert concurrency.allowed(110.0) == 20
    concurrency.slow_down(110.0, begun=101.0)
    assert concurrency.allowed(110.0) == 10


def test_after_an_outage_it_begins_with_one_and_doubles():
    concurrency = pacing.Concurrency(10, settle=5.0)
    concurrency.restart(100.0)
    assert [concurrency.allowed(now) for now in (99.0, 100.0, 104.9, 105.0, 110.0, 115.0, 120.0, 1e9)] == [
        *(1, 1, 1, 2, 4, 8, 10, 10)
    ]


def test_a_signal_after_an_outage_counts_from_what_was_allowed_then():
    concurrency = pacing.Concurrency(10, interval=60.0, settle=5.0)
    concurrency.restart(100.0)
    concurrency.slow_down(115.0)
    assert [concurrency.allowed(now) for now in (115.0, 174.9, 175.0)] == [4, 4, 5]


def test_an_outage_makes_nobody_forget_that_the_relay_asked_for_less():
    concurrency = pacing.Concurrency(10, interval=60.0, settle=5.0)
    concurrency.slow_down(0.0)
    concurrency.restart(10.0)
    concurrency.change(20, 11.0)
    assert [concurrency.allowed(now) for now in (11.0, 15.0, 20.0, 30.0)] == [1, 2, 4, 5]


def test_another_limit_forgets_nothing_that_the_relay_asked_for():
    concurrency = pacing.Concurrency(20, interval=60.0)
    concurrency.change(30, 0.0)
    assert concurrency.allowed(0.0) == 30
    concurrency.slow_down(10.0)
    concurrency.change(30, 50.0)  # a reload that changed something else
    assert [concurrency.allowed(now) for now in (50.0, 69.9, 70.0)] == [15, 15, 18]
    concurrency.change(60, 70.0)
    assert [concurrency.allowed(now) for now in (70.0, 130.0, 10_000.0)] == [18, 24, 60]
    concurrency.change(8, 10_000.0)
    assert concurrency.allowed(10_000.0) == 8


# --- shares -----------------------------------------------------------------------------------------------


@given(rate=st.floats(0.01, 1000), nodes=st.integers(0, 50))
def test_the_shares_of_all_nodes_are_the_rate(rate, nodes):
    assert pacing.share(rate, nodes) * max(1, nodes) == pytest.approx(rate)


def _pace(rates, nodes=1, **more):
    pace = pacing.Pace(10)
    pace.change(rates, nodes, 0.0, **more)
    return pace


def test_nothing_is_limited_without_a_rate():
    pace = _pace(pacing.Rates())
    assert [pace.take(0.0) + pace.take_domain("a", 0.0) for _ in range(1000)] == [0.0] * 1000
    assert pace.crowded is None


def test_a_node_takes_its_share_of_every_rate():
    pace = _pace(pacing.Rates(relay=6.0, domain=3.0, domains={"big": 30.0}), nodes=3)
    assert [pace.take(0.0) for _ in range(3)] == [0.0, 0.5, 1.0]
    assert [pace.take_domain("small", 0.0) for _ in range(3)] == [0.0, 1.0, 2.0]
    assert [pace.take_domain("big", 0.0) for _ in range(3)] == pytest.approx([0.0, 0.1, 0.2])
    assert pace.crowded == ("big", pytest.approx(0.2))


def test_turns_that_come_late_do_not_go_all_at_once():
    pace = _pace(pacing.Rates(domains={"crowded": 8.0}), nodes=2)
    turns = [pace.take_domain("crowded", 0.0) for _ in range(20)]
    assert turns[-1] == pytest.approx(19 / 4)
    admitted = [pace.admit("crowded", 5.0) for _ in turns]
    assert admitted == [0.0] * 4 + [pytest.approx(1 / 4)] * 16
    assert pace.admit("crowded", 5.25) == 0.0
    assert pace.admit("free", 5.0) == 0.0


def test_a_domain_whose_turns_come_in_time_waits_for_nothing_else():
    pace = _pace(pacing.Rates(domain=4.0))
    for number in range(100):
        late = 0.2 if number % 3 else 0.0
        assert pace.admit("crowded", number / 4 + late) == 0.0


def test_debts_outlive_a_reload_and_the_coming_and_going_of_nodes():
    pace = _pace(pacing.Rates(relay=1.0, domain=1.0))
    for _ in range(11):
        pace.take(0.0)
        pace.take_domain("crowded", 0.0)
    pace.change(pacing.Rates(relay=2.0, domain=2.0), 1, 0.0)
    assert pace.wait(0.0) == pytest.approx(5.5)
    assert pace.take_domain("crowded", 0.0) == pytest.approx(5.5)
    pace.change(pacing.Rates(relay=2.0, domain=2.0), 4, 0.0)
    assert pace.wait(0.0) == pytest.approx(22.0)
    pace.change(pacing.Rates(), 4, 0.0)
    assert pace.take(0.0) == pace.take_domain("crowded", 0.0) == 0.0


def test_a_node_that_comes_to_others_waits_until_they_have_heard_of_it():
    pace = _pace(pacing.Rates(relay=100.0), nodes=2, owing=5.0)
    assert pace.wait(0.0) == pytest.approx(4.92)
    assert pace.wait(5.0) == 0.0


@given(
    rate=st.floats(1, 500),
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=8),
)
def test_whatever_nodes_come_and_go_one_of_them_never_takes_more_than_its_share(rate, counts):
    pace, used, allowance = _pace(pacing.Rates(relay=rate), nodes=counts[0]), 0, 0.0
    burst = max(1.0, rate / min(counts) / 10)
    now = 0.0
    for nodes in counts:
        pace.change(pacing.Rates(relay=rate), nodes, now)
        now += 1.0
        allowance += rate / nodes
        while pace.wait(now) == 0.0:
            pace.take(now)
            used += 1
    assert used <= burst + allowance + 1e-6


# --- turns ------------------------------------------------------------------------------------------------


def _rounds(due, *, room, rounds, seconds=0.01):
    """Let runs with so much due claim in turns; return what each had got after each round."""
    turns, got, history = pacing.Turns(), dict.fromkeys(due, 0), []
    for number in range(rounds):
        for run, asked in turns.shares(list(due), room, number * seconds):
            given = min(asked, due[run] - got[run])
            got[run] += given
            turns.claimed(run, asked, given, number * seconds)
        history.append(dict(got))
    return history


def test_a_million_never_starve_ten():
    first, *_ = _rounds({1: 1_000_000, 2: 10}, room=50, rounds=1)
    assert first == {1: 25, 2: 10}


def test_what_one_run_does_not_need_is_the_others():
    history = _rounds({1: 1_000_000, 2: 10, 3: 0}, room=60, rounds=3)
    assert [each[1] for each in history] == [20, 80, 140]


def test_a_hundred_dry_runs_slow_down_nobody():
    due = {1: 1_000_000} | dict.fromkeys(range(2, 102), 0)
    history = _rounds(due, room=50, rounds=10)
    assert history[-1][1] >= 50 * 7, "after two rounds of asking all of them"


def test_a_dry_run_is_asked_again_after_a_rest():
    turns = pacing.Turns(rest=0.5)
    assert turns.shares([1], 10, 0.0) == [(1, 10)]
    turns.claimed(1, 10, 3, 0.0)
    assert turns.shares([1], 10, 0.4) == []
    assert turns.shares([1], 10, 0.5) == [(1, 10)]


def test_no_run_is_first_for_ever():
    turns = pacing.Turns()
    firsts = [turns.shares([1, 2, 3], 7, 0.0)[0][0] for _ in range(6)]
    assert firsts == [1, 2, 3, 1, 2, 3]


@given(
    runs=st.lists(st.integers(1, 40), min_size=1, max_size=40, unique=True),
    room=st.integers(1, 60),
)
def test_all_room_is_given_and_each_run_has_its_turn(runs, room):
    turns = pacing.Turns()
    asked = set()
    for _ in range(-(-len(runs) // room) + 1):
        shares = turns.shares(runs, room, 0.0)
        assert sum(count for _, count in shares) == room
        counts = [count for _, count in shares]
        assert max(counts) - min(counts) <= 1
        asked.update(run for run, _ in shares)
    assert asked == set(runs)


def test_without_room_nobody_is_asked():
    assert pacing.Turns().shares([1, 2], 0, 0.0) == []
