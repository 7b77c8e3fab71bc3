"""Signed tokens: what verifies, and above all what does not."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbound import tokens
from mailbound.tokens import Key, Purpose

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
TODAY = tokens.day_number(NOW)
KEY = Key(3, b"k" * 32)
KEYS = {3: KEY}
OF_DELIVERIES = st.sampled_from([Purpose.RETURN_PATH, Purpose.ENVID, Purpose.MESSAGE_ID])


@given(OF_DELIVERIES, st.integers(0, 2**40 - 1), st.integers(0, 255))
def test_a_token_says_what_was_signed(purpose: Purpose, delivery: int, attempt: int) -> None:
    text = tokens.for_delivery(KEY, purpose, delivery, attempt=attempt, day=TODAY)
    found = tokens.verify(text.upper(), KEYS, now=NOW)
    assert found is not None
    assert (found.purpose, found.subject, found.key_id) == (purpose, delivery, 3)
    assert found.attempt == (0 if purpose is Purpose.MESSAGE_ID else attempt)


@given(st.lists(st.tuples(st.integers(0, 2**40 - 1), st.integers(0, 300))), OF_DELIVERIES)
def test_tokens_made_together_are_those_made_one_by_one(
    attempts: list[tuple[int, int]], purpose: Purpose
) -> None:
    together = tokens.for_deliveries(KEY, purpose, attempts, day=TODAY)
    assert together == [tokens.for_delivery(KEY, purpose, of, attempt=n, day=TODAY) for of, n in attempts]
    subjects = [delivery for delivery, _ in attempts]
    wishes = tokens.for_unsubscribes(KEY, subjects, store=2)
    assert wishes == [tokens.for_unsubscribe(KEY, subject, store=2) for subject in subjects]


@given(st.binary(max_size=200))
def test_a_token_is_written_as_the_rfc_says(octets: bytes) -> None:
    whole = octets[: len(octets) // 5 * 5]
    assert tokens._base32(whole) == base64.b32encode(whole).decode().lower()


def test_a_token_fits_into_a_local_part() -> None:
    text = tokens.for_delivery(KEY, Purpose.RETURN_PATH, 2**40 - 1, attempt=255, day=TODAY)
    assert len(text) == tokens.LENGTH == 40
    assert text.isalnum()
    assert text == text.lower()
    assert tokens.LOCAL_PART_LIMIT + len("+") + len(text) == 64


@given(st.integers(0, 39), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_any_other_character_spoils_it(position: int, character: str) -> None:
    text = tokens.for_delivery(KEY, Purpose.RETURN_PATH, 42, attempt=1, day=TODAY)
    forged = text[:position] + character + text[position + 1 :]
    assert (tokens.verify(forged, KEYS, now=NOW) is None) == (forged != text)


@given(st.text(max_size=60) | st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=40, max_size=40))
def test_nothing_else_verifies(text: str) -> None:
    assert tokens.verify(text, KEYS, now=NOW) is None


def test_another_key_does_not_verify() -> None:
    text = tokens.for_delivery(Key(3, b"x" * 32), Purpose.ENVID, 42, attempt=1, day=TODAY)
    assert tokens.verify(text, KEYS, now=NOW) is None
    assert tokens.verify(text, {}, now=NOW) is None


@pytest.mark.parametrize(
    ("age_days", "valid"),
    [
        pytest.param(0, True, id="today"),
        pytest.param(60, True, id="the last day of the longest run"),
        pytest.param(61, False, id="expired"),
        pytest.param(-1, False, id="from tomorrow"),
    ],
)
def test_a_delivery_token_expires(age_days: int, valid: bool) -> None:
    text = tokens.for_delivery(KEY, Purpose.ENVID, 42, attempt=1, day=TODAY - age_days)
    assert (tokens.verify(text, KEYS, now=NOW) is not None) == valid


def test_an_unsubscribe_token_never_expires() -> None:
    text = tokens.for_unsubscribe(KEY, 7, store=2)
    found = tokens.verify(text, KEYS, now=NOW + timedelta(days=10_000))
    assert found == tokens.Token(Purpose.UNSUBSCRIBE, 3, 7, store=2)


def test_a_retry_mints_the_same_message_id() -> None:
    first, second = (tokens.for_delivery(KEY, Purpose.MESSAGE_ID, 42, attempt=n, day=TODAY) for n in (1, 2))
    assert first == second
    first, second = (tokens.for_delivery(KEY, Purpose.ENVID, 42, attempt=n, day=TODAY) for n in (1, 2))
    assert first != second
