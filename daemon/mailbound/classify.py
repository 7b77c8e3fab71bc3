"""What a report or an SMTP reply means: a category, permanent or transient, and the rule that said so.

The experience is data, in `rules.toml`: the first rule that fits decides. What no rule fits is unclear, and an unclear
failure takes much longer to count against an address than one that names it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from mailbound.errors import ConfigError
from mailbound.model import Action, Category, Fault, Phase, Reply, Verdict
from mailbound.reading.report import RecipientReport
from mailbound.status import StatusCode

NO_RULE = "none"
"""The name that stands in a verdict where no rule fitted."""

TEXT_LIMIT = 4000
"""How many characters of a text are judged."""

_KEYS = frozenset({"name", "category", "permanent", "status", "code", "text", "example", "source"})
_STATUS = re.compile(r"([45X])\.(\d{1,3})\.(\d{1,3})\Z")
_ADDRESS = re.compile(r"[^\s<>()\[\],;:\"'@]{1,64}@[\w-]+(?:\.[\w-]+)*")
_REPLY_CODE = re.compile(r"(?<![\w.#-])([245][0-5]\d)(?=[\s:;,-]|\Z)(?!-\d)")

# Before RCPT a reply cannot speak of the recipient, whatever it says (RFC 5321 §3.3).
_BEFORE_RECIPIENT = frozenset({Phase.CONNECT, Phase.EHLO, Phase.STARTTLS, Phase.AUTH, Phase.MAIL})

SISIMAI: Mapping[Category, str] = {
    Category.NO_SUCH_USER: "userunknown",
    Category.NO_SUCH_DOMAIN: "hostunknown",
    Category.DISABLED: "suspend",
    Category.MOVED: "hasmoved",
    Category.MAILBOX_FULL: "mailboxfull",
    Category.MAILBOX_SIZE: "exceedlimit",
    Category.BLOCKED: "blocked",
    Category.REPUTATION: "badreputation",
    Category.AUTHENTICATION: "authfailure",
    Category.POLICY: "policyviolation",
    Category.RATE: "speeding",
    Category.CONTENT: "spamdetected",
    Category.VIRUS: "virusdetected",
    Category.TOO_LARGE: "mesgtoobig",
    Category.GREYLISTED: "greylisted",
    Category.NETWORK: "networkerror",
    Category.SYSTEM: "systemerror",
    Category.EXPIRED: "expired",
    Category.UNCLEAR: "undefined",
}
"""The nearest word of the vocabulary that other bounce readers share."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One piece of experience. Whatever of status, code and text it gives must all fit."""

    name: str
    category: Category
    permanent: bool | None = None  # None: what the class of the status or of the reply says
    status: frozenset[StatusCode] = frozenset()
    code: frozenset[int] = frozenset()
    text: re.Pattern[str] | None = None
    example: str = ""
    source: str = ""

    def fits(self, status: StatusCode | None, code: int, text: str) -> bool:
        """Tell whether the rule speaks of this failure. `text` is lower case."""
        return (
            (not self.status or status in self.status)
            and (not self.code or code in self.code)
            and (self.text is None or self.text.search(text) is not None)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """The rules in order, and the version of the file they came with."""

    version: str
    ordered: tuple[Rule, ...]
    given_up: tuple[Rule, ...]  # those by whose text a mailer says that it has tried for long enough

    @classmethod
    def load(cls, *extra: Path) -> Rules:
        """Return the packaged rules behind those of the files in `extra`. Raises ConfigError with every fault."""
        packaged = resources.files("mailbound").joinpath("rules.toml").read_text("utf-8")
        faults: list[str] = []
        ordered: list[Rule] = []
        version = ""
        for name, text in [*((str(path), _text(path, faults)) for path in extra), ("rules.toml", packaged)]:
            try:
                tables = tomllib.loads(text)
            except tomllib.TOMLDecodeError as error:
                faults.append(f"{name}: {error}")
                continue
            version = "+".join(filter(None, (str(tables.get("version", "")), version)))
            ordered += _rules(name, tables.get("rule", []), faults)
        if faults:
            raise ConfigError(faults)
        given_up = (rule for rule in ordered if rule.category is Category.EXPIRED and rule.text)
        return cls(version, tuple(ordered), tuple(given_up))


@cache
def rules() -> Rules:
    """Return the packaged rules."""
    return Rules.load()


def classify(report: RecipientReport, known: Rules) -> Verdict:
    """Return what a report says about one recipient. What did not fail is unclear and transient."""
    if report.action not in {Action.FAILED, Action.DELAYED}:
        return Verdict(
            Category.UNCLEAR, permanent=False, status=report.status, rule=f"action-{report.action}"
        )
    code = _REPLY_CODE.search(report.diagnostic_code)
    verdict = judge(report.status, int(code[1]) if code else 0, report.diagnostic_code, known)
    if report.action is Action.DELAYED and verdict.permanent:
        return Verdict(verdict.category, permanent=False, status=verdict.status, rule=verdict.rule)
    return verdict


def classify_reply(reply: Reply, phase: Phase, known: Rules) -> Verdict:
    """Return what our own relay's refusal says. Before RCPT it is never about the recipient."""
    verdict = judge(StatusCode.of_reply(reply), reply.code, reply.text, known)
    if phase in _BEFORE_RECIPIENT and verdict.fault not in {Fault.SENDER, Fault.PATH}:
        category = Category.POLICY if verdict.permanent else Category.SYSTEM
        return Verdict(category, verdict.permanent, verdict.status, f"before-recipient:{verdict.rule}")
    return verdict


def judge(status: StatusCode | None, code: int, text: str, known: Rules) -> Verdict:
    """Return what a failure means, by its status (None), reply code (0 if unknown) and text."""
    text = _ADDRESS.sub(
        "someone@somewhere", text[:TEXT_LIMIT].lower()
    )  # what somebody is called decides nothing
    text = " ".join(text.replace("_", " ").split())  # USER_UNKNOWN is words as well
    return _decide(status, code, text, known)


@lru_cache(maxsize=4096)  # without their addresses, the replies of one campaign are few
def _decide(status: StatusCode | None, code: int, text: str, known: Rules) -> Verdict:
    # What was given up on is no sign of a dead address (RFC 3463 §2), whatever was said at the last try.
    lasting = _lasts(status, code) and not any(rule.fits(status, code, text) for rule in known.given_up)
    for rule in known.ordered:
        if rule.fits(status, code, text):
            permanent = lasting if rule.permanent is None else rule.permanent and lasting
            return Verdict(rule.category, permanent, status, rule.name)
    return Verdict(Category.UNCLEAR, lasting, status, NO_RULE)


def _lasts(status: StatusCode | None, code: int) -> bool:
    """Tell whether the class is 5. A bare 5.0.0 says less than the reply beside it; silence is taken for 5."""
    if status is not None and not (status.is_bare and code):
        return status.class_ == 5
    return code // 100 != 4


def _text(path: Path, faults: list[str]) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path}: {error}")
        return ""


def _rules(name: str, tables: Iterable[Mapping[str, Any]], faults: list[str]) -> list[Rule]:
    found: list[Rule] = []
    for number, table in enumerate(tables, 1):
        try:
            found.append(_rule(table))
        except (ValueError, TypeError, KeyError, re.error) as error:
            faults.append(f"{name}: rule {number} ({table.get('name', 'without a name')}): {error}")
    return found


def _rule(table: Mapping[str, Any]) -> Rule:
    unknown = table.keys() - _KEYS
    if unknown:
        raise ValueError(f"unknown key {', '.join(sorted(unknown))}")
    if not table.keys() & {"status", "code", "text"}:
        raise ValueError("it has neither status nor code nor text, and would fit everything")
    return Rule(
        name=str(table["name"]),
        category=Category(table["category"]),
        permanent=table.get("permanent"),
        status=frozenset(code for text in table.get("status", ()) for code in _codes(text)),
        code=frozenset(table.get("code", ())),
        text=re.compile(table["text"]) if "text" in table else None,
        example=table.get("example", ""),
        source=table.get("source", ""),
    )


def _codes(text: str) -> list[StatusCode]:
    """Return the codes that `5.1.1` or `X.1.1` stands for; X is 4 and 5."""
    match = _STATUS.match(text)
    if not match:
        raise ValueError(f"{text!r} is no status code; one is written 5.1.1, or X.1.1 for 4.1.1 and 5.1.1")
    classes = (4, 5) if match[1] == "X" else (int(match[1]),)
    return [StatusCode(class_, int(match[2]), int(match[3])) for class_ in classes]
