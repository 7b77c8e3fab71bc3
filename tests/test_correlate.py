from __future__ import annotations

import pytest

from mailbound import correlate, reading, tokens
from mailbound.correlate import Carrier, Clue
from mailbound.model import Kind
from mailbound.reading.report import Report
from mailbound.tokens import Purpose

KEY = tokens.Key(3, b"k" * 32)
PATH = tokens.for_delivery(KEY, Purpose.RETURN_PATH, 7, attempt=1, day=20_000)
ENVID = tokens.for_delivery(KEY, Purpose.ENVID, 7, attempt=1, day=20_000)
MESSAGE = tokens.for_delivery(KEY, Purpose.MESSAGE_ID, 7, attempt=1, day=20_000)
LEAVE = tokens.for_unsubscribe(KEY, 7, store=1)


def report(**fields):
    return Report(kind=Kind.BOUNCE, **fields)


def test_the_surest_clue_comes_first():
    found = correlate.clues(
        report(
            delivered_to=("info@sender.example", f"bounces+{PATH}@sender.example"),
            original_envelope_id=ENVID,
            returned_message_ids=(f"{MESSAGE}@sender.example",),
        )
    )
    assert [(clue.carrier, clue.token) for clue in found] == [
        (Carrier.RETURN_PATH, PATH),
        (Carrier.ENVID, ENVID),
        (Carrier.MESSAGE_ID, MESSAGE),
    ]


@pytest.mark.parametrize("change", [str.upper, str.title, str.lower])
def test_a_token_is_read_in_any_case(change):
    address = change(f"bounces+{PATH}@sender.example")
    assert correlate.clues(report(delivered_to=(address,))) == [Clue(Carrier.RETURN_PATH, PATH, address)]


def test_an_unsubscribe_token_in_the_same_place_is_told_apart():
    [clue] = correlate.clues(report(delivered_to=(f"bounces+{LEAVE}@sender.example",)))
    assert (clue.carrier, clue.token) == (Carrier.UNSUBSCRIBE, LEAVE)


def test_a_token_that_came_back_twice_is_one_clue():
    address = f"bounces+{PATH}@sender.example"
    assert len(correlate.clues(report(delivered_to=(address, address.upper())))) == 1


def test_a_message_id_given_back_as_the_envelope_id_is_called_what_it_is():
    """Haraka does so."""
    [clue] = correlate.clues(report(original_envelope_id=f"<{MESSAGE}@sender.example>"))
    assert (clue.carrier, clue.token) == (Carrier.MESSAGE_ID, MESSAGE)


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("bounces@sender.example", id="no token"),
        pytest.param(f"{PATH}@sender.example", id="no plus before it"),
        pytest.param(f"bounces+{PATH[1:]}@sender.example", id="too short"),
        pytest.param(f"bounces+{PATH}a@sender.example", id="too long"),
        pytest.param(f"bounces+{PATH[:-1]}1@sender.example", id="not base32"),
    ],
)
def test_what_is_no_token_is_no_clue(address):
    assert correlate.clues(report(delivered_to=(address,))) == []


@pytest.mark.parametrize("purpose", [Purpose.RETURN_PATH, Purpose.ENVID, Purpose.MESSAGE_ID])
def test_only_an_unsubscribe_token_calls_itself_one(purpose):
    for key_id in range(32):
        token = tokens.for_delivery(tokens.Key(key_id, b"k"), purpose, 1, attempt=0, day=1)
        [clue] = correlate.clues(report(delivered_to=(f"b+{token}@sender.example",)))
        assert clue.carrier is Carrier.RETURN_PATH
    leave = tokens.for_unsubscribe(tokens.Key(31, b"k"), 1, store=1)
    [clue] = correlate.clues(report(delivered_to=(f"b+{leave}@sender.example",)))
    assert clue.carrier is Carrier.UNSUBSCRIBE


def test_a_wish_to_leave_may_carry_its_token_in_the_subject():
    mail = f"From: anna@example.org\r\nTo: bounces@example.com\r\nSubject: unsubscribe {LEAVE}\r\n\r\n\r\n"
    found = reading.read(mail.encode())
    assert found.kind is Kind.UNSUBSCRIBE
    assert [(clue.carrier, clue.token) for clue in correlate.clues(found)] == [(Carrier.UNSUBSCRIBE, LEAVE)]
