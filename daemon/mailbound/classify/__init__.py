"""What a report or an SMTP reply means: a category, permanent or transient, and the rule that said so.

The experience is data: `rules.toml` for texts, of which the first rule that fits decides; `status_codes.toml` for
codes, where no text says more; `categories.toml` for what others call our categories. What nothing fits is unclear, and
an unclear failure takes much longer to count against an address than one that names it. A text can only soften: nothing
makes permanent what its status or its reply calls transient.
"""

from __future__ import annotations

import re
from functools import lru_cache

from mailbound.classify import normal, tables
from mailbound.classify.rules import Failure, Rule, Rules
from mailbound.classify.rules import packaged as rules
from mailbound.model import Action, Category, Fault, Phase, Reply, Verdict
from mailbound.reading import phase as told
from mailbound.reading.report import RecipientReport
from mailbound.status import StatusCode

__all__ = [
    "NO_RULE",
    "Rule",
    "Rules",
    "classify",
    "classify_reply",
    "failure_class",
    "judge",
    "reason",
    "rules",
    "ses",
]

NO_RULE = "none"
"""The name that stands in a verdict where no rule fitted."""

_REPLY_CODE = re.compile(r"(?<![\w.#-])([245][0-5]\d)(?=[\s:;,-]|\Z)(?!-\d)")

# `550 5.1.1 Unknown`: a reply code and, right behind it, an enhanced one.
_BOTH_CODES = re.compile(r"\s*(?:smtp;\s*)?([45])\d\d[- ]#?([45])\.\d{1,3}\.\d{1,3}\b", re.IGNORECASE)

_TOLD = {
    Phase.CONNECT: told.Phase.CONNECT,
    Phase.EHLO: told.Phase.HELO,
    Phase.STARTTLS: told.Phase.HELO,
    Phase.AUTH: told.Phase.HELO,
    Phase.MAIL: told.Phase.MAIL,
    Phase.RCPT: told.Phase.RCPT,
    Phase.DATA: told.Phase.DATA,
    Phase.BODY: told.Phase.END,
    Phase.FINAL_DOT: told.Phase.END,
}
"""The phases of our own session, as a report would tell of them."""

# Before RCPT a reply cannot speak of the recipient, whatever it says (RFC 5321 §3.3).
_BEFORE_RECIPIENT = frozenset({told.Phase.CONNECT, told.Phase.HELO, told.Phase.MAIL})
_BEFORE = "before-recipient:"  # stands before the name of the rule in such a verdict


def classify(report: RecipientReport, known: Rules) -> Verdict:
    """Return what a report says about one recipient. What did not fail is unclear and transient."""
    if report.action not in {Action.FAILED, Action.DELAYED}:
        return Verdict(
            Category.UNCLEAR, permanent=False, status=report.status, rule=f"action-{report.action}"
        )
    verdict = judge(
        report.status,
        _reply_code(report),
        report.diagnostic_code,
        known,
        mta=report.remote_mta,
        diagnostic_type=report.diagnostic_type,
        phase=report.phase,
    )
    if report.action is Action.DELAYED and verdict.permanent:
        return Verdict(verdict.category, permanent=False, status=verdict.status, rule=verdict.rule)
    return verdict


def classify_reply(reply: Reply, phase: Phase, known: Rules) -> Verdict:
    """Return what our own relay's refusal says. Before RCPT it is never about the recipient."""
    return judge(StatusCode.of_reply(reply), reply.code, reply.text, known, phase=_TOLD.get(phase))


def judge(
    status: StatusCode | None,
    code: int,
    text: str,
    known: Rules,
    *,
    mta: str = "",
    diagnostic_type: str = "",
    phase: told.Phase | None = None,
) -> Verdict:
    """Return what a failure means: its status (None) and reply code (0) if known, its text, who said it and when."""
    verdict = _decide(Failure(status, code, normal.text(text), mta.lower(), diagnostic_type, phase), known)
    if phase in _BEFORE_RECIPIENT and verdict.fault not in {Fault.SENDER, Fault.PATH}:
        category = Category.POLICY if verdict.permanent else Category.SYSTEM
        return Verdict(category, verdict.permanent, verdict.status, f"{_BEFORE}{verdict.rule}")
    return verdict


def reason(verdict: Verdict, known: Rules) -> str:
    """Return the word for `verdict` in the vocabulary that bounce readers share, as `userunknown`."""
    name = verdict.rule.removeprefix(_BEFORE)
    rule = known.by_name.get(name)
    if rule and rule.reason:
        return rule.reason
    if name != verdict.rule and verdict.category is Category.POLICY:
        return "rejected"  # only the sender had been named by then
    return tables.meanings()[verdict.category].reason


def ses(verdict: Verdict) -> str:
    """Return the bounceType/bounceSubType that Amazon SES would give it, as `Permanent/General`."""
    permanent, transient = tables.meanings()[verdict.category].ses
    return permanent if verdict.permanent else transient


def failure_class(report: RecipientReport, verdict: Verdict, known: Rules) -> int:
    """Return the class of a failure (RFC 3463 §2), 4 or 5: of its reply, of its status, or what its rule knows.

    A reply is believed whose two codes agree. A mailer that goes on to another host writes a status of its own beside
    it, as Postfix does for a refusal at the door.
    """
    both = _BOTH_CODES.match(report.diagnostic_code)
    if both and both[1] == both[2]:
        return int(both[1])
    status = report.status or verdict.status
    if status:
        return status.class_
    rule = known.by_name.get(verdict.rule)
    return rule.class_ if rule else 5


@lru_cache(maxsize=4096)  # without their addresses, the replies of one campaign are few
def _decide(failure: Failure, known: Rules) -> Verdict:
    rule, given_up = known.find(failure)
    # What was given up on is no sign of a dead address (RFC 3463 §2), whatever was said at the last try.
    lasting = _lasts(failure.status, failure.code) and not given_up
    if rule is None:
        return Verdict(Category.UNCLEAR, lasting, failure.status, NO_RULE)
    permanent = lasting if rule.permanent is None else rule.permanent and lasting
    return Verdict(rule.category, permanent, failure.status, rule.name)


def _lasts(status: StatusCode | None, code: int) -> bool:
    """Tell whether the class is 5. A bare 5.0.0 says less than the reply beside it; silence is taken for 5."""
    if status is not None and not (status.is_bare and code):
        return status.class_ == 5
    return code // 100 != 4


def _reply_code(report: RecipientReport) -> int:
    match = _REPLY_CODE.search(report.diagnostic_code)
    return int(match[1]) if match else 0
