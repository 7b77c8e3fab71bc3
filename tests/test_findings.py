"""From a report to findings: which delivery it speaks of, and how we know."""

from __future__ import annotations

from typing import Any

import pytest

from mailbound import classify, tokens
from mailbound.inbound import findings
from mailbound.inbound.findings import Arrived
from mailbound.model import Action, Category, Evidence, Kind
from mailbound.reading import RecipientReport, Report
from mailbound.status import StatusCode
from mailbound.tokens import Key, Purpose
from world import NOW

KEY = Key(1, b"k" * 32)
TODAY = tokens.day_number(NOW)
ARRIVED = Arrived(mail_id=5, store_id=2, at=NOW)
FAILED = RecipientReport(
    "anna@example.org", status=StatusCode(5, 1, 1), diagnostic_code="550 5.1.1 User unknown"
)


def minted(purpose: Purpose, *, attempt: int = 2, day: int = TODAY, key: Key = KEY) -> str:
    return tokens.for_delivery(key, purpose, 42, attempt=attempt, day=day)


def address(token: str) -> tuple[str, ...]:
    return (f"bounces+{token}@example.com",)


def find(**report: Any) -> list[findings.Finding]:
    said = {"kind": Kind.BOUNCE, "recipients": (FAILED,), **report}
    return findings.find(Report(**said), ARRIVED, keys={1: KEY}, rules=classify.rules())


@pytest.mark.parametrize(
    ("carrier", "attempt"),
    [
        pytest.param({"delivered_to": address(minted(Purpose.RETURN_PATH))}, 2, id="return path"),
        pytest.param({"delivered_to": address(minted(Purpose.RETURN_PATH).upper())}, 2, id="in capitals"),
        pytest.param({"original_envelope_id": minted(Purpose.ENVID)}, 2, id="envelope id"),
        pytest.param(
            {"returned_message_ids": (f"{minted(Purpose.MESSAGE_ID)}@example.com",)}, 0, id="message id"
        ),
    ],
)
def test_each_carrier_proves_its_delivery(carrier: dict[str, Any], attempt: int) -> None:
    (finding,) = find(**carrier)
    assert (finding.evidence, finding.delivery_id, finding.attempt) == (Evidence.SIGNED, 42, attempt)
    assert (finding.verdict.category, finding.verdict.permanent) == (Category.NO_SUCH_USER, True)
    assert (finding.addresses, finding.mail_id, finding.store_id) == (("anna@example.org",), 5, 2)


def test_a_finding_says_what_brought_our_tokens_back() -> None:
    (finding,) = find(
        delivered_to=address(minted(Purpose.RETURN_PATH)),
        original_envelope_id=minted(Purpose.RETURN_PATH),  # in the wrong place
        returned_message_ids=(f"{minted(Purpose.MESSAGE_ID)}@example.com",),
    )
    assert finding.carriers == ("return-path", "message-id")


@pytest.mark.parametrize(
    "carrier",
    [
        pytest.param({}, id="no token at all"),
        pytest.param({"delivered_to": address(minted(Purpose.ENVID))}, id="an envelope id in the address"),
        pytest.param({"delivered_to": address(minted(Purpose.MESSAGE_ID))}, id="a message id in the address"),
        pytest.param(
            {"original_envelope_id": minted(Purpose.RETURN_PATH)}, id="a return path as envelope id"
        ),
        pytest.param({"original_envelope_id": minted(Purpose.ENVID, day=TODAY - 61)}, id="too old"),
        pytest.param({"original_envelope_id": minted(Purpose.ENVID, day=TODAY + 1)}, id="of tomorrow"),
        pytest.param({"original_envelope_id": minted(Purpose.ENVID, key=Key(1, b"x"))}, id="of another key"),
        pytest.param({"original_envelope_id": minted(Purpose.ENVID, key=Key(2, b"k" * 32))}, id="of no key"),
        pytest.param(
            {"delivered_to": address(tokens.for_unsubscribe(KEY, 42, store=2))}, id="an unsubscribe token"
        ),
    ],
)
def test_anything_else_is_unsigned(carrier: dict[str, Any]) -> None:
    (finding,) = find(**carrier)
    assert (finding.evidence, finding.delivery_id) == (Evidence.UNSIGNED, None)


def test_each_recipient_is_a_finding_of_its_own() -> None:
    later = RecipientReport("bert@example.org", action=Action.DELAYED, status=StatusCode(4, 4, 1))
    found = find(recipients=(FAILED, later), original_envelope_id=minted(Purpose.ENVID))
    assert [(each.kind, each.action) for each in found] == [
        (Kind.BOUNCE, Action.FAILED),
        (Kind.DELAY, Action.DELAYED),
    ]


def test_a_report_without_a_token_that_names_a_thousand_counts_for_few() -> None:
    crowd = tuple(RecipientReport(f"{number}@example.org", action=Action.FAILED) for number in range(1000))
    signed = find(recipients=crowd, original_envelope_id=minted(Purpose.ENVID))
    assert len(findings.worth_recording(find(recipients=crowd))) == findings.MOST_UNSIGNED
    assert findings.worth_recording(signed) == signed
    assert len(signed) == 1000


def test_a_signed_report_without_a_recipient_speaks_of_its_delivery() -> None:
    (finding,) = find(recipients=(), delivered_to=address(minted(Purpose.RETURN_PATH)))
    assert (finding.addresses, finding.action, finding.verdict.category) == (
        (),
        Action.FAILED,
        Category.UNCLEAR,
    )
    assert find(recipients=()) == []


@pytest.mark.parametrize("feedback", ["abuse", "fraud", "opt-out", "virus"])
def test_a_complaint_is_one_by_its_token(feedback: str) -> None:
    returned = (f"{minted(Purpose.MESSAGE_ID)}@example.com",)
    (finding,) = find(
        kind=Kind.COMPLAINT, recipients=(), feedback_type=feedback, returned_message_ids=returned
    )
    assert (finding.action, finding.delivery_id, finding.evidence) == (Action.COMPLAINED, 42, Evidence.SIGNED)


@pytest.mark.parametrize("feedback", ["not-spam", "auth-failure", "other", ""])
def test_other_feedback_is_no_complaint(feedback: str) -> None:
    returned = (f"{minted(Purpose.MESSAGE_ID)}@example.com",)
    assert find(kind=Kind.COMPLAINT, feedback_type=feedback, returned_message_ids=returned) == []


def test_a_wish_to_leave_needs_its_own_token() -> None:
    token = tokens.for_unsubscribe(KEY, 7, store=2)
    (finding,) = find(kind=Kind.UNSUBSCRIBE, recipients=(), delivered_to=address(token))
    assert (finding.action, finding.recipient_id, finding.store_id) == (Action.UNSUBSCRIBED, 7, 2)
    assert finding.evidence is Evidence.SIGNED
    (forged,) = find(kind=Kind.UNSUBSCRIBE, recipients=(), delivered_to=address(minted(Purpose.RETURN_PATH)))
    assert (forged.evidence, forged.recipient_id) == (Evidence.UNSIGNED, None)


@pytest.mark.parametrize("kind", [Kind.AUTO_REPLY, Kind.ORDINARY, Kind.CHALLENGE, Kind.DISPOSITION])
def test_other_mail_says_nothing_about_a_delivery(kind: Kind) -> None:
    assert find(kind=kind, delivered_to=address(minted(Purpose.RETURN_PATH))) == []
    assert find(kind=kind, delivered_to=address(tokens.for_unsubscribe(KEY, 7, store=2))) == []


def test_a_link_is_worth_what_its_token_is() -> None:
    found = findings.leave(tokens.for_unsubscribe(KEY, 7, store=2), keys={1: KEY}, now=NOW)
    assert found is not None
    assert (found.recipient_id, found.store_id, found.evidence) == (7, 2, Evidence.SIGNED)
    for text in (minted(Purpose.RETURN_PATH), tokens.for_unsubscribe(Key(1, b"x"), 7, store=2), "nonsense"):
        assert findings.leave(text, keys={1: KEY}, now=NOW) is None
