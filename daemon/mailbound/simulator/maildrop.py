"""The one mailbox into which all reports fall, kept in memory."""

from __future__ import annotations

from collections.abc import Iterable


class Maildrop:
    """Messages by their unique id, in order of arrival; open for one session at a time (RFC 1939 §4)."""

    def __init__(self) -> None:
        """Begin empty."""
        self.locked = False
        self._messages: dict[str, bytes] = {}
        self._count = 0

    def __len__(self) -> int:
        """Return how many messages lie there."""
        return len(self._messages)

    def put(self, content: bytes) -> None:
        """Let a message fall in; its lines end with CRLF."""
        self._count += 1
        self._messages[f"{self._count:08x}"] = content

    def messages(self) -> list[tuple[str, bytes]]:
        """Return all messages with their unique ids, as they are now."""
        return list(self._messages.items())

    def remove(self, uids: Iterable[str]) -> None:
        """Remove messages for good."""
        for uid in uids:
            self._messages.pop(uid, None)
