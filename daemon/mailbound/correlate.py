"""Where a report shows which delivery it speaks of: candidates for a signed token, the surest place first.

Nothing is verified here: whoever has the keys does that, and takes the first clue that holds. An address that was
merely named is no clue at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from mailbound import tokens
from mailbound.reading import unsubscribe
from mailbound.reading.report import Report

_TOKEN = re.compile(rf"(?i)(?<![a-z2-7])[a-z2-7]{{{tokens.LENGTH}}}(?![a-z2-7])")


class Carrier(StrEnum):
    """What brought a token back, in order of trust."""

    RETURN_PATH = "return-path"
    ENVID = "envid"
    MESSAGE_ID = "message-id"
    UNSUBSCRIBE = "unsubscribe"


class Clue(NamedTuple):
    """A token as it came back, in lower case, and the address or identifier that it stood in."""

    carrier: Carrier
    token: str
    address: str


def clues(report: Report) -> list[Clue]:
    """Return the clues of a report in order of trust, each token once; [] if it carries none."""
    found: dict[str, Clue] = {}
    for clue in _candidates(report):
        found.setdefault(clue.token, clue)
    return list(found.values())


def _candidates(report: Report) -> Iterator[Clue]:
    for address in report.delivered_to:
        token = unsubscribe.token_of(address)
        if token:
            carrier = Carrier.UNSUBSCRIBE if unsubscribe.is_for_that(token) else Carrier.RETURN_PATH
            yield Clue(carrier, token, address)
    if token := unsubscribe.in_subject(report.subject):
        yield Clue(Carrier.UNSUBSCRIBE, token, report.subject)
    for identifier in (report.original_envelope_id, *report.returned_message_ids):
        for token in _TOKEN.findall(identifier):
            # Haraka gives back the Message-ID as the envelope id.
            carrier = Carrier.MESSAGE_ID if "@" in identifier else Carrier.ENVID
            yield Clue(carrier, token.lower(), identifier)
