"""What a record may not hold: secrets, addresses in clear, objects, and more text than a log can bear."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import SecretStr
from structlog.typing import EventDict, WrappedLogger

from mailbound import address

HIDDEN = "********"
_LONGEST = 2_000  # characters of one value; a reply or a diagnostic is far shorter
_DEEPEST = 8

_SECRET_KEY = re.compile(
    r"passw|secret|credential|authori[sz]ation|api_?key|cookie|(?:^|_)token$", re.IGNORECASE
)
_ADDRESS_KEYS = frozenset({"address", "recipient_address"})
_IDENTIFIER_KEYS = frozenset({"event", "message_id", "envid", "return_path", "timestamp", "level"})
# An address within a text. It begins where a word begins, so that a long word is looked at once.
_ADDRESS = re.compile(
    r"""(?<![^\s<>"'(),:;\[\]])(?:"[^"\n]{1,64}"|[^\s<>"'(),:;\[\]@]++)@[^\s<>"'(),:;\[\]@]++"""
)


class Scrubber:
    """A structlog processor; it leaves plain values: texts, numbers, truth values, None, lists, tables."""

    def __init__(self, secrets: Iterable[SecretStr], *, clear_addresses: bool) -> None:
        """Hide `secrets` by their value, too. One of fewer than 4 characters would hide half the log."""
        values = {secret.get_secret_value() for secret in secrets}
        longest_first = sorted((value for value in values if len(value) >= 4), key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first)))
        self._values = tuple(longest_first)
        self._clear = clear_addresses
        self._key = functools.lru_cache(1024)(lambda key: self._text(key, "event"))

    def __call__(self, _logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
        """Return what of `record` may be written."""
        return {self._key(key): self._value(value, key, 0) for key, value in record.items()}

    def column(self, key: str, values: Sequence[Any]) -> Sequence[Any]:
        """Return what of the values of one key, in many records, may be written."""
        kinds = set(map(type, values))
        if not _is_secret(key):
            if kinds == {int} or (kinds == {float} and all(map(math.isfinite, values))):
                return values
            if kinds == {str} and self._is_harmless(key, values):
                return values
        return [self._value(value, key, 0) for value in values]

    def _is_harmless(self, key: str, texts: Sequence[str]) -> bool:
        """Return whether nothing in these texts needs to be hidden or cut."""
        joined = "\n".join(texts)
        has_address = key in _ADDRESS_KEYS or ("@" in joined and key not in _IDENTIFIER_KEYS)
        return (
            (self._clear or not has_address)
            and max(map(len, texts)) <= _LONGEST
            and not any(secret in joined for secret in self._values)
        )

    def _value(self, value: Any, key: str, depth: int) -> Any:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if _is_secret(key):
            return HIDDEN
        if kind is str:
            return self._text(value, key)
        if kind is int:
            return value
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else str(value)
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            return self._inner(value, key, depth)
        return self._text(_said(value), key)

    def _inner(self, value: Any, key: str, depth: int) -> Any:
        if depth >= _DEEPEST:
            return "…"
        if isinstance(value, Mapping):
            named = ((str(name), inner) for name, inner in value.items())
            return {self._key(name): self._value(inner, name, depth + 1) for name, inner in named}
        return [self._value(inner, key, depth + 1) for inner in value]

    def _text(self, text: str, key: str) -> str:
        for value in self._values:  # sought one by one, which takes a tenth of what the pattern does
            if value in text:
                # Before anything else, for a cut could leave half a secret.
                text = self._secrets.sub(HIDDEN, text)
                break
        if len(text) > _LONGEST and key != "exception":
            text = text[:_LONGEST] + "…"
        if self._clear or key in _IDENTIFIER_KEYS:
            return text
        if key in _ADDRESS_KEYS:
            return address.masked(text)
        return _ADDRESS.sub(lambda match: address.masked(match[0]), text) if "@" in text else text


@functools.lru_cache(1024)
def _is_secret(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None


def _said(value: object) -> str:
    """Return how `value` calls itself. An object whose words fail is named by its type."""
    try:
        return repr(value) if isinstance(value, bytes | bytearray) else str(value)
    except Exception:  # noqa: BLE001 - whatever it raises, a record of the log must not fail
        return f"<{type(value).__name__}>"
