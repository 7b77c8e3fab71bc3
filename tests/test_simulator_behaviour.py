"""What simulated recipients do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbound.model import Kind, Reply
from mailbound.simulator.behaviour import CATALOGUE, ORDINARY, behave, fill


def first_words(reply):
    return f"{reply.code} {reply.text.split()[0]}"


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("rest", ["", "+x", "-17", ".anything", "_x", "+a+b-c", "-17.x"])
def test_each_name_of_the_catalogue_may_be_followed_by_anything(name, rest):
    assert behave(f"{name}{rest}@example.com") == CATALOGUE[name]


@pytest.mark.parametrize(
    "local", ["fuller", "bob", "bob+full", "refuse1", "full@x", "delayfail", "", "bounce!", "sales.full"]
)
def test_any_other_address_takes_its_mail(local):
    assert behave(f"{local}@example.com") == ORDINARY


def test_letters_may_be_of_any_case():
    assert behave("Full-1@Example.COM") == CATALOGUE["full"]


@pytest.mark.parametrize(
    ("local", "status", "reply"),
    [
        ("bounce", "5.1.1", "550 5.1.1"),
        ("bounce+5.1.1", "5.1.1", "550 5.1.1"),
        ("bounce+5.2.2-17", "5.2.2", "552 5.2.2"),
        ("bounce.4.2.2.17", "4.2.2", "452 4.2.2"),
        ("bounce-5.7.26_x", "5.7.26", "550 5.7.26"),
        ("bounce+5.999.999", "5.999.999", "550 5.999.999"),
        ("bounce+5.1.1234", "5.1.1", "550 5.1.1"),
        ("bounce+2.0.0", "5.1.1", "550 5.1.1"),
        ("full", "5.2.2", "552 5.2.2"),
        ("disabled", "5.2.1", "550 5.2.1"),
        ("moved", "5.1.6", "551 5.1.6"),
        ("blocked", "5.7.1", "554 5.7.1"),
        ("policy", "5.7.1", "554 5.7.1"),
        ("no-such-domain", "5.1.2", "0 Host"),
        ("expired", "4.4.7", "0 delivery"),
    ],
)
def test_a_bounce_has_the_status_that_its_address_asks_for(local, status, reply):
    its = behave(f"{local}@example.com")
    assert its.at_rcpt is None
    (answer,) = its.answers
    assert (answer.kind, answer.status, first_words(answer.reply)) == (Kind.BOUNCE, status, reply)


@pytest.mark.parametrize(
    ("local", "reply"),
    [
        ("refuse", "550 5.1.1"),
        ("refuse+550-5.1.1", "550 5.1.1"),
        ("refuse+5.7.1", "554 5.7.1"),
        ("refuse+451-4.7.1.x", "451 4.7.1"),
        ("refuse+4.2.2-17", "452 4.2.2"),
        ("refuse+5.4.4", "550 5.4.4"),
        ("refuse+421", "421 <{recipient}>:"),
        ("refuse+550", "550 <{recipient}>:"),
        ("refuse+550-17", "550 <{recipient}>:"),
        ("refuse+17", "550 5.1.1"),
    ],
)
def test_a_refusal_has_the_codes_that_its_address_asks_for(local, reply):
    assert first_words(behave(f"{local}@example.com").at_rcpt) == reply


def test_a_refusal_with_250_is_none():
    assert behave("refuse+250@example.com").at_rcpt is None


def test_a_delay_that_fails_is_told_twice_in_order():
    delayed, failed = behave("delay-fail@example.com").answers
    assert (delayed.kind, failed.kind) == (Kind.DELAY, Kind.BOUNCE)
    assert delayed.after < failed.after


@pytest.mark.parametrize(
    ("rate", "least", "most"), [(0, 0, 0), (0.1, 250, 350), (0.5, 1400, 1600), (1, 3000, 3000)]
)
def test_a_share_of_the_ordinary_addresses_bounces(rate, least, most):
    bounced = [behave(f"p{number}@example.com", bounce_rate=rate, seed=1) for number in range(3000)]
    assert least <= sum(bool(its.answers) for its in bounced) <= most


def test_most_of_those_that_bounce_are_unknown_and_the_rest_are_of_all_sorts():
    bounced = [behave(f"p{number}@example.com", bounce_rate=1).answers[0].status for number in range(2000)]
    counts = {status: bounced.count(status) for status in bounced}
    assert set(counts) == {"5.1.1", "5.2.2", "5.2.1", "5.1.2", "4.4.7", "5.7.1"}
    assert counts["5.1.1"] > 1000


def test_the_same_seed_picks_the_same_addresses_and_another_one_picks_others():
    def picked(seed):
        return [bool(behave(f"p{n}@x.test", bounce_rate=0.5, seed=seed).answers) for n in range(100)]

    assert picked(1) == picked(1)
    assert picked(1) != picked(2)


def test_a_named_address_does_what_it_says_at_any_rate():
    assert behave("full@example.com", bounce_rate=1) == CATALOGUE["full"]


@given(st.text(), st.floats(0, 1))
def test_any_text_has_a_behaviour_that_depends_on_nothing_else(address, rate):
    assert behave(address, bounce_rate=rate) == behave(address, bounce_rate=rate)


def test_a_text_is_filled_with_the_address_and_its_domain():
    assert fill("<{recipient}>: no {domain} here", "a@b.test") == "<a@b.test>: no b.test here"


@pytest.mark.parametrize("its", CATALOGUE.values(), ids=CATALOGUE)
def test_replies_of_the_catalogue_agree_with_themselves(its):
    said = [reply for reply in (its.at_rcpt, its.at_end) if reply] + [answer.reply for answer in its.answers]
    for reply in said:
        assert reply.code == 0 or str(reply.code)[0] == reply.text[0] or reply == Reply(0, "")
