"""The guard against mass bounces: what many failures have in common, and when that is too much to believe."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbound import guard
from mailbound.config import Guard
from mailbound.guard import By, Crowd, Traits

LIMITS = Guard(count=50, run_share=0.2, alike_share=0.05, domain_share=0.5)
NOBODY = Traits(1, "", "", "")


def crowd(by: By, count: int, subject: str = "x") -> Crowd:
    return Crowd(by, subject, count, frozenset({1}))


@pytest.mark.parametrize(
    ("by", "count", "settled", "why"),
    [
        (By.RUN, 49, 49, None),
        (By.RUN, 50, 251, None),
        (By.RUN, 50, 250, "50 of 250 addresses of the run are said to be dead"),
        (By.TEXT, 49, 49, None),
        (By.TEXT, 50, 1001, None),
        (By.TEXT, 50, 1000, "50 of 1,000 deliveries failed for good with one text"),
        (By.REMOTE, 50, 1000, "50 of 1,000 deliveries failed for good at x"),
        (By.DOMAIN, 50, 101, None),
        (By.DOMAIN, 50, 100, "50 of 100 addresses at x are said to be dead"),
        (By.DOMAIN, 60, 50, "60 of 60 addresses at x are said to be dead"),
    ],
)
def test_a_crowd_is_held_over_a_count_and_a_share(by: By, count: int, settled: int, why: str | None) -> None:
    assert guard.alarm(crowd(by, count), settled=settled, limits=LIMITS) == why


@pytest.mark.parametrize("by", By)
def test_a_run_halts_unless_only_one_domain_is_gone(by: By) -> None:
    assert guard.halts(by) is (by is not By.DOMAIN)


def test_what_tells_most_of_the_cause_comes_first() -> None:
    counts = {
        Traits(1, "no such user", "mx1.google.com", "gmail.com"): 60,
        Traits(2, "no such user", "mx2.google.com", "example.org"): 10,
        Traits(1, "gone", "mx.example.net", "example.net"): 20,
    }
    assert guard.crowds(counts, LIMITS) == [
        Crowd(By.TEXT, "no such user", 70, frozenset({1, 2})),
        Crowd(By.REMOTE, "google.com", 70, frozenset({1, 2})),
        Crowd(By.DOMAIN, "gmail.com", 60, frozenset({1})),
        Crowd(By.RUN, "1", 80, frozenset({1})),
    ]


def test_what_names_nothing_has_nothing_in_common() -> None:
    assert [each.by for each in guard.crowds({NOBODY: 1000}, LIMITS)] == [By.RUN]


NAMES = st.sampled_from(["", "a.example", "b.a.example", "c.test"])
COUNTS = st.dictionaries(
    st.builds(Traits, st.integers(1, 3), st.sampled_from(["", "gone", "no such user"]), NAMES, NAMES),
    st.integers(1, 200),
    max_size=12,
)


@given(COUNTS)
def test_each_crowd_counts_exactly_what_fits_it(counts: dict[Traits, int]) -> None:
    for each in guard.crowds(counts, LIMITS):
        fitting = {traits: count for traits, count in counts.items() if traits.of(each.by) == each.subject}
        assert each.count == sum(fitting.values()) >= LIMITS.count
        assert each.run_ids == {traits.run_id for traits in fitting}
        assert guard.without(counts, each) == {
            traits: count for traits, count in counts.items() if traits not in fitting
        }


@given(COUNTS, st.integers(0, 5000))
def test_no_list_is_emptied(counts: dict[Traits, int], settled: int) -> None:
    """Whatever comes, what is believed of one kind stays below a count or below a share."""
    left = counts
    while held := next(
        (each for each in guard.crowds(left, LIMITS) if guard.alarm(each, settled=settled, limits=LIMITS)),
        None,
    ):
        left = guard.without(left, held)
    sums: Counter[tuple[By, str]] = Counter()
    for traits, count in left.items():
        sums.update({(by, traits.of(by)): count for by in By if traits.of(by)})
    shares = {By.RUN: 0.2, By.DOMAIN: 0.5}
    for (by, _), count in sums.items():
        assert count < LIMITS.count or count < shares.get(by, 0.05) * settled


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 5000), st.sampled_from(By))
def test_more_bounces_never_calm_the_guard(fewer: int, more: int, settled: int, by: By) -> None:
    if guard.alarm(crowd(by, fewer), settled=settled, limits=LIMITS):
        assert guard.alarm(crowd(by, fewer + more), settled=settled, limits=LIMITS)


@pytest.mark.parametrize(
    ("text", "gist"),
    [
        (
            "550 5.1.1 <joe@example.com>: Recipient address rejected: User unknown in virtual mailbox table",
            "550 5.1.1 someone recipient address rejected user unknown in virtual mailbox table",
        ),
        ("550 5.1.1 No such user joe here", "550 5.1.1 no such user someone here"),
        (
            "Host or domain name not found. Name service error for name=example.com type=MX: Host not found",
            "host or domain name not found name service error for * type=mx host not found",
        ),
        (
            "550-5.1.1 gone https://support.google.com/mail a640c23a62f3a-a1b2c3d4 - gsmtp",
            "550-5.1.1 gone * # gsmtp",
        ),
        ("", ""),
        ("-- ! --", ""),
    ],
)
def test_a_gist_has_nobodys_name(text: str, gist: str) -> None:
    assert guard.gist(text, "joe@example.com") == gist


@given(st.text(), st.from_regex(r"[a-z]{1,8}@[a-z]{1,8}\.test", fullmatch=True))
def test_a_gist_is_short_and_calm(text: str, address: str) -> None:
    once = guard.gist(text, address)
    assert len(once) <= 160
    assert once.split() == once.split(" ") or not once


@given(st.from_regex(r"[a-z]{3,8}@[a-z]{1,8}\.test", fullmatch=True))
def test_two_people_have_one_gist(address: str) -> None:
    said = "550 5.1.1 <{}>: user unknown (queue {})"
    assert guard.gist(said.format(address, "4B1F"), address) == guard.gist(
        said.format("joe@x.test", "77A2C"), "joe@x.test"
    )


@pytest.mark.parametrize(
    ("host", "family"),
    [
        ("alt1.gmail-smtp-in.l.google.com", "google.com"),
        ("MX.Example.ORG.", "example.org"),
        ("mx.mail.example.co.uk", "example.co.uk"),
        ("example.de", "example.de"),
        ("192.0.2.7", "192.0.2.7"),
        ("localhost", "localhost"),
        ("", ""),
    ],
)
def test_the_hosts_of_one_operator_are_alike(host: str, family: str) -> None:
    assert guard.family(host) == family
