"""From a report to findings: what it says about which delivery, and how we know. Pure."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from mailbound import classify, correlate, tokens
from mailbound.correlate import Carrier, Clue
from mailbound.database.bounces import Finding
from mailbound.model import Action, Category, Evidence, Kind, Verdict
from mailbound.reading import RecipientReport, Report
from mailbound.tokens import Purpose, Token

PURPOSES = {
    Carrier.RETURN_PATH: Purpose.RETURN_PATH,
    Carrier.ENVID: Purpose.ENVID,
    Carrier.MESSAGE_ID: Purpose.MESSAGE_ID,
    Carrier.UNSUBSCRIBE: Purpose.UNSUBSCRIBE,
}
"""What a token must be for, by what brought it back."""

_COMPLAINTS = frozenset({"abuse", "fraud", "opt-out", "virus"})
"""Feedback types that mean: no more of this. `not-spam` and `auth-failure` do not (RFC 6650 §4, RFC 6591)."""

MOST_UNSIGNED = 10
"""So many recipients of a report without a token count: a message of ours has one, a forgery may name a thousand."""

_ABOUT_DELIVERIES = frozenset({Kind.BOUNCE, Kind.DELAY, Kind.SUCCESS})


class Arrived(NamedTuple):
    """Where and when a mail came."""

    mail_id: int | None
    store_id: int
    at: datetime


class Said(NamedTuple):
    """What a mail says: what it is, and what is worth recording of it."""

    kind: Kind
    part: str  # who spoke, as in a report
    subject: str
    why: str
    found: Sequence[Finding]


def understand(
    report: Report, arrived: Arrived, *, keys: Mapping[int, tokens.Key], rules: classify.Rules
) -> Said:
    """Return what is to be recorded of a mail. A bounce that says nothing of anybody is not recognised."""
    found = worth_recording(find(report, arrived, keys=keys, rules=rules))
    unrecognised = report.kind is Kind.BOUNCE and not found
    kind = Kind.UNRECOGNISED if unrecognised else report.kind
    return Said(kind, report.part, report.subject, report.why, found)


def find(
    report: Report, arrived: Arrived, *, keys: Mapping[int, tokens.Key], rules: classify.Rules
) -> list[Finding]:
    """Return what `report` says, one finding for each recipient; [] for a mail that says nothing about a delivery."""
    genuine = list(_tokens(report, keys, arrived.at))  # those behind the first tell which carriers survive
    found = []
    if report.kind is Kind.UNSUBSCRIBE:
        wish = next((token for token in genuine if token.purpose is Purpose.UNSUBSCRIBE), None)
        found = [_unsubscribe(report, arrived, wish)]
    elif report.kind is Kind.COMPLAINT and report.feedback_type in _COMPLAINTS:
        found = [_complaint(report, arrived, _delivery(genuine))]
    elif report.kind in _ABOUT_DELIVERIES:
        delivery = _delivery(genuine)
        found = [
            _about(recipient, report, arrived, delivery, rules) for recipient in _recipients(report, delivery)
        ]
    if any(each.evidence is Evidence.UNSIGNED for each in found):
        doubts = [doubt(clue, keys, now=arrived.at) for clue in correlate.clues(report)]
        otherwise = "its token is for something else" if doubts else "it carries no token of ours"
        why = next((each for each in doubts if each), otherwise)
        return [each._replace(doubt=why) for each in found]
    carriers = _carriers(frozenset(token.purpose for token in genuine))
    return [each._replace(carriers=carriers) for each in found]


def worth_recording(found: Sequence[Finding]) -> Sequence[Finding]:
    """Return all that a signed report says, and of an unsigned one what it says about the first few recipients."""
    signed = [finding for finding in found if finding.evidence is not Evidence.UNSIGNED]
    return signed or found[:MOST_UNSIGNED]


def leave(text: str, *, keys: Mapping[int, tokens.Key], now: datetime) -> Finding | None:
    """Return what the token of an unsubscribe link says, or None if it is not genuine."""
    token = tokens.verify(text, keys, now=now)
    if token is None or token.purpose is not Purpose.UNSUBSCRIBE:
        return None
    return _wish(token, now, rule="unsubscribe link")


def doubt(clue: Clue, keys: Mapping[int, tokens.Key], *, now: datetime) -> str:
    """Return why a clue proves nothing, for people; "" if its token is genuine and stands where it belongs."""
    token = tokens.verify(clue.token, keys, now=now)
    if token is None:
        return tokens.doubt(clue.token, keys, now=now)
    made_for = token.purpose.name.lower().replace("_", "-")
    return "" if token.purpose is PURPOSES[clue.carrier] else f"we signed it to be carried by the {made_for}"


def _tokens(report: Report, keys: Mapping[int, tokens.Key], now: datetime) -> Iterator[Token]:
    """Yield the genuine tokens of a report, the most trusted first; each only where its purpose belongs."""
    for clue in correlate.clues(report):
        token = tokens.verify(clue.token, keys, now=now)
        if token is not None and token.purpose is PURPOSES[clue.carrier]:
            yield token


@functools.cache
def _carriers(purposes: frozenset[Purpose]) -> tuple[Carrier, ...]:
    """Return what brought tokens of some purposes back."""
    return tuple(carrier for carrier in Carrier if PURPOSES[carrier] in purposes)


def _delivery(genuine: Sequence[Token]) -> Token | None:
    """Return the most trusted token of a delivery."""
    return next((token for token in genuine if token.purpose is not Purpose.UNSUBSCRIBE), None)


def _recipients(report: Report, delivery: Token | None) -> tuple[RecipientReport, ...]:
    """Return what is said of each recipient. A signed report that names none speaks of its delivery's."""
    if report.recipients or delivery is None:
        return report.recipients
    action = {Kind.DELAY: Action.DELAYED, Kind.SUCCESS: Action.DELIVERED}.get(report.kind, Action.FAILED)
    return (RecipientReport(final_recipient="", action=action),)


def _about(
    recipient: RecipientReport,
    report: Report,
    arrived: Arrived,
    delivery: Token | None,
    rules: classify.Rules,
) -> Finding:
    kind = {Action.DELAYED: Kind.DELAY, Action.FAILED: Kind.BOUNCE}.get(recipient.action, Kind.SUCCESS)
    return Finding(
        kind=kind,
        at=arrived.at,
        action=recipient.action,
        verdict=_verdict(recipient, rules),
        evidence=Evidence.SIGNED if delivery else Evidence.UNSIGNED,
        delivery_id=delivery.subject if delivery else None,
        minted=(delivery.key_id, delivery.day) if delivery else None,
        attempt=delivery.attempt if delivery else 0,
        store_id=arrived.store_id,
        mail_id=arrived.mail_id,
        addresses=tuple(text for text in (recipient.original_recipient, recipient.final_recipient) if text),
        diagnostic=recipient.diagnostic_code,
        reporting_mta=report.reporting_mta,
        remote_mta=recipient.remote_mta,
        rule_version=rules.version,
    )


def _verdict(recipient: RecipientReport, rules: classify.Rules) -> Verdict:
    if recipient.action in {Action.FAILED, Action.DELAYED}:
        return classify.classify(recipient, rules)
    return Verdict(
        Category.UNCLEAR, permanent=False, status=recipient.status, rule=f"action {recipient.action}"
    )


def _complaint(report: Report, arrived: Arrived, delivery: Token | None) -> Finding:
    return Finding(
        kind=Kind.COMPLAINT,
        at=arrived.at,
        action=Action.COMPLAINED,
        verdict=Verdict(
            Category.UNCLEAR, permanent=False, status=None, rule=f"feedback-type {report.feedback_type}"
        ),
        evidence=Evidence.SIGNED if delivery else Evidence.UNSIGNED,
        delivery_id=delivery.subject if delivery else None,
        minted=(delivery.key_id, delivery.day) if delivery else None,
        attempt=delivery.attempt if delivery else 0,
        store_id=arrived.store_id,
        mail_id=arrived.mail_id,
        addresses=tuple(recipient.final_recipient for recipient in report.recipients),
        reporting_mta=report.reporting_mta,
    )


def _unsubscribe(report: Report, arrived: Arrived, token: Token | None) -> Finding:
    addresses = (report.sender,) if report.sender else ()
    if token is not None:
        return _wish(token, arrived.at)._replace(mail_id=arrived.mail_id, addresses=addresses)
    return Finding(
        kind=Kind.UNSUBSCRIBE,
        at=arrived.at,
        action=Action.UNSUBSCRIBED,
        verdict=_WISH,
        evidence=Evidence.UNSIGNED,
        store_id=arrived.store_id,
        mail_id=arrived.mail_id,
        addresses=addresses,
    )


def _wish(token: Token, at: datetime, *, rule: str = "unsubscribe by mail") -> Finding:
    return Finding(
        kind=Kind.UNSUBSCRIBE,
        at=at,
        action=Action.UNSUBSCRIBED,
        verdict=replace(_WISH, rule=rule),
        evidence=Evidence.SIGNED,
        recipient_id=token.subject,
        store_id=token.store,
    )


_WISH = Verdict(Category.UNCLEAR, permanent=False, status=None, rule="unsubscribe by mail")
