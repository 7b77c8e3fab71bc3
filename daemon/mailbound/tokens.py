"""Signed tokens: how a bounce proves which delivery it speaks of.

A token is 25 bytes, written as exactly 40 characters of base32 (RFC 4648 §6), lower case, unpadded:

    1  purpose (3 bits) and key id (5 bits)
    5  delivery id; for an unsubscribe token, recipient id
    3  attempt (8 bits) and day (16 bits since 1970-01-01); for an unsubscribe token, store number
    16 keyed BLAKE2s (RFC 7693) of "mailbound/1" + the nine bytes before, 128 bits

A return path `bounces+TOKEN@example.com` so stays within the 64 octets that RFC 5321 §4.5.3.1.1 allows a local part.
"""

from __future__ import annotations

import functools
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import IntEnum
from hashlib import blake2s
from typing import NamedTuple

LENGTH = 40
"""How many characters a token has."""

VALID_FOR = timedelta(days=30)
"""How long after its mark a delivery's tokens count. The day in a token is its run's first, so `verify` is laxer."""

_LONGEST_RUN = timedelta(days=30)
LOCAL_PART_LIMIT = 64 - LENGTH - 1
"""How many octets the inbound account's own local part may have."""

_CONTEXT = b"mailbound/1"

# What `int` takes for digits of base 32, by the alphabet of RFC 4648 §6; all else becomes what it takes for none.
_LETTERS, _VALUES = b"abcdefghijklmnopqrstuvwxyz234567", b"0123456789abcdefghijklmnopqrstuv"
_DIGITS = bytes(
    _VALUES[_LETTERS.index(letter)] if letter in _LETTERS else ord("!")
    for letter in bytes(range(256)).lower()
)
_LETTER_OF = _LETTERS.ljust(256)
_EPOCH = date(1970, 1, 1)
_HALVES = (
    (12, "000000fffff00000", "00000000000fffff"),
    (6, "000ffc00000ffc00", "000003ff000003ff"),
    (3, "03e003e003e003e0", "001f001f001f001f"),
)
"""How forty bits in eight bytes become five in each: how far upper halves move, and what upper and lower halves are."""


class Purpose(IntEnum):
    """What a token may be used for. One purpose's token is worth nothing for another."""

    RETURN_PATH = 1
    ENVID = 2
    MESSAGE_ID = 3
    UNSUBSCRIBE = 4


_PURPOSES = {purpose.value: purpose for purpose in Purpose}


@dataclass(frozen=True, slots=True)
class Key:
    """A signing key: `id` is 0 to 31, `secret` up to 32 bytes. A retired one still verifies, but mints no more."""

    id: int
    secret: bytes


class Token(NamedTuple):
    """What a genuine token says. `subject` is a delivery id, or a recipient id when it unsubscribes."""

    purpose: Purpose
    key_id: int
    subject: int
    attempt: int = 0
    day: int = 0
    store: int = 0


def day_number(moment: datetime) -> int:
    """Return the days from 1970-01-01 to `moment` (UTC): how a token writes a date."""
    return (moment.astimezone(UTC).date() - _EPOCH).days


def for_delivery(key: Key, purpose: Purpose, delivery_id: int, *, attempt: int, day: int) -> str:
    """Return the token of one delivery. A Message-ID's attempt is always 0, so that retries share it."""
    return for_deliveries(key, purpose, [(delivery_id, attempt)], day=day)[0]


def for_deliveries(key: Key, purpose: Purpose, attempts: Iterable[tuple[int, int]], *, day: int) -> list[str]:
    """Return the tokens of deliveries, each given by its id and attempt. A Message-ID's attempt is always 0."""
    same = purpose << 69 | key.id << 64 | day
    if purpose is Purpose.MESSAGE_ID:
        return _signed(key, [same | delivery_id << 24 for delivery_id, _ in attempts])
    return _signed(
        key, [same | delivery_id << 24 | min(attempt, 255) << 16 for delivery_id, attempt in attempts]
    )


def for_unsubscribe(key: Key, recipient_id: int, *, store: int) -> str:
    """Return the token that ends a recipient's opt-in for a store. It never expires."""
    return for_unsubscribes(key, [recipient_id], store=store)[0]


def for_unsubscribes(key: Key, recipient_ids: Iterable[int], *, store: int) -> list[str]:
    """Return the tokens that end the opt-in of recipients for a store."""
    same = Purpose.UNSUBSCRIBE << 69 | key.id << 64 | store
    return _signed(key, [same | recipient_id << 24 for recipient_id in recipient_ids])


def verify(text: str, keys: Mapping[int, Key], *, now: datetime) -> Token | None:
    """Return what `text` says if one of our keys signed it and it is still valid, else None."""
    raw = _decode(text)
    if raw is None:
        return None
    key = keys.get(raw[0] & 0x1F)
    if key is None or not hmac.compare_digest(_tag(key, raw[:9]), raw[9:]):
        return None
    purpose = _PURPOSES.get(raw[0] >> 5)
    if purpose is None:
        return None
    subject = int.from_bytes(raw[1:6], "big")
    if purpose is Purpose.UNSUBSCRIBE:
        return Token(purpose, key.id, subject, store=int.from_bytes(raw[6:9], "big"))
    day = int.from_bytes(raw[7:9], "big")
    if not 0 <= day_number(now) - day <= (VALID_FOR + _LONGEST_RUN).days:
        return None
    return Token(purpose, key.id, subject, attempt=raw[6], day=day)


def doubt(text: str, keys: Mapping[int, Key], *, now: datetime) -> str:
    """Return why `verify` returns None for `text`, for people; "" if it does not."""
    if verify(text, keys, now=now) is not None:
        return ""
    raw = _decode(text)
    if raw is None:
        return "it is no token"
    key = keys.get(raw[0] & 0x1F)
    if key is None:
        return f"we have no key {raw[0] & 0x1F}"
    if not hmac.compare_digest(_tag(key, raw[:9]), raw[9:]):
        return "our key did not sign it: it is damaged, forged, or of another installation"
    day = _EPOCH + timedelta(days=int.from_bytes(raw[7:9], "big"))
    return f"we signed it, but for {day:%Y-%m-%d}, which is too far away"


def digest(key: Key, text: str) -> str:
    """Return a keyed hash of `text`, for recognising an erased address without keeping it."""
    return blake2s(b"mailbound/erased" + text.encode(), key=key.secret).hexdigest()


def _signed(key: Key, said: Iterable[int]) -> list[str]:
    heads = [number.to_bytes(9, "big") for number in said]
    text = _base32(b"".join([head + _tag(key, head) for head in heads]))
    return [text[start : start + LENGTH] for start in range(0, len(text), LENGTH)]


def _tag(key: Key, head: bytes) -> bytes:
    return blake2s(_CONTEXT + head, key=key.secret, digest_size=16).digest()


def _base32(octets: bytes) -> str:
    """Return the octets of many tokens in lower case; here `base64` would take nine times as long."""
    groups = len(octets) // 5
    wide = bytearray(8 * groups)
    for place in range(5):
        wide[3 + place :: 8] = octets[place::5]
    bits = int.from_bytes(wide, "big")
    for shift, upper, lower in _masks(groups):
        bits = (bits & upper) << shift | bits & lower
    return bits.to_bytes(8 * groups, "big").translate(_LETTER_OF).decode()


@functools.lru_cache(64)
def _masks(groups: int) -> list[tuple[int, int, int]]:
    return [(shift, _repeated(upper, groups), _repeated(lower, groups)) for shift, upper, lower in _HALVES]


def _repeated(digits: str, times: int) -> int:
    return int.from_bytes(bytes.fromhex(digits) * times, "big")


def _decode(text: str) -> bytes | None:
    if len(text) != LENGTH or not text.isascii():
        return None
    try:
        return int(text.encode().translate(_DIGITS), 32).to_bytes(
            25, "big"
        )  # much quicker than base64.b32decode
    except ValueError:
        return None
