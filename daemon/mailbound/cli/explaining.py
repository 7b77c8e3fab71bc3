"""`mailbound bounce explain`: how a mail is understood, where in it that stands, and what it would do."""

from __future__ import annotations

import contextlib
import email.parser
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailbound.cli import explain_views, terminal
from mailbound.errors import ConfigError, DatabaseError, InputError
from mailbound.model import Evidence
from mailbound.reading.layout import Zone
from mailbound.reading.marks import Mark

if TYPE_CHECKING:
    import sqlalchemy as sa

    from mailbound import classify, config, tokens
    from mailbound.correlate import Clue
    from mailbound.database.bounces import Finding
    from mailbound.database.kept import Kept
    from mailbound.policy import Decision
    from mailbound.reading import Report
    from mailbound.reading.marks import Marked


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What this installation knows. Where it has no database, `missing` says why; then no token can be checked."""

    rules: classify.Rules
    limits: config.Policy
    keys: Mapping[int, tokens.Key]
    stores: Mapping[str, str]  # the inbound address of each, by its name
    connection: sa.Connection | None = None
    missing: str = ""


def explain(
    context: typer.Context,
    mail: Annotated[
        str,
        typer.Argument(
            metavar="FILE|NUMBER", help="A file, or the number of a bounce; - reads standard input."
        ),
    ],
    *,
    is_mail: Annotated[
        bool, typer.Option("--mail", help="The number is that of a mail, as `bounce list --mail` shows it.")
    ] = False,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Whose mailbox it came to [default: the one that it is addressed to]."
        ),
    ] = None,
    json: terminal.Json = False,
) -> None:
    """Say how a mail is understood, and what it would do.

    What was used of the mail is marked in it. Nothing is recorded. A file can be explained without a configuration,
    too; then nobody can tell whether its tokens are ours.
    """
    from mailbound import bounds, reading
    from mailbound.database import kept as kept_mails
    from mailbound.reading import marks

    number = int(mail) if mail.isdecimal() and not Path(mail).exists() else None
    if is_mail and number is None:
        raise InputError("--mail goes with the number of a mail")
    content = b"" if number is not None else _mail(Path(mail))
    with _surroundings(context, is_needed=number is not None or store is not None) as known:
        kept = None
        if number is not None and known.connection is not None:
            find = kept_mails.find if is_mail else kept_mails.of_bounce
            kept = find(known.connection, number)
        content = kept.content if kept else content
        with bounds.kept(mail if number is None else f"{'mail' if is_mail else 'bounce'} {number}"):
            report = reading.read(content)
            marked = marks.mark(content, report)
        explained = _explained(report, marked, known, kept, store)
    if json:
        terminal.print_json(explained)
    else:
        explain_views.explained(explained, marked)


@contextlib.contextmanager
def _surroundings(context: typer.Context, *, is_needed: bool) -> Iterator[Surroundings]:
    """Give what is known here. Raises what stands in the way of that if a database is needed."""
    from mailbound import classify, config
    from mailbound.database import token_keys

    rules = classify.Rules.load()
    with contextlib.ExitStack() as stack:
        try:
            settings = config.load(context.obj)
            missing = "" if is_needed or _is_there(settings) else "there is no database yet"
            if not missing:
                connection = stack.enter_context(stack.enter_context(terminal.open_database(context)).look())
        except (ConfigError, DatabaseError) as error:
            if is_needed:
                raise
            missing = str(error).partition("\n")[0]
        if missing:
            yield Surroundings(rules, config.Policy(), {}, {}, missing=missing)
            return
        addresses = {name: each.inbound.address for name, each in settings.stores.items()}
        yield Surroundings(rules, settings.policy, token_keys.verifying(connection), addresses, connection)


def _is_there(settings: config.Config) -> bool:
    """Tell whether there is a database, as far as that can be seen: to look at a mail is no reason to make one."""
    url = settings.database.url
    return not settings.database.is_sqlite or Path(url.removeprefix("sqlite:///")).exists()


def _mail(path: Path) -> bytes:
    """Return the content of a file. Raises InputError if it is no mail: nothing in it is a header field."""
    content = content_of(path)
    if not email.parser.BytesHeaderParser().parsebytes(content[:_HEADER_LIMIT]).keys():
        raise InputError(f"{path} is no mail: it does not begin with a header")
    return content


_HEADER_LIMIT = 100 * 1024


_SIZE_LIMIT = 100 * 1024 * 1024


def content_of(path: Path) -> bytes:
    """Return the content of a file, or of standard input for `-`. Raises InputError if it cannot be read."""
    content = bytearray()
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as file:
            while (chunk := file.read(1 << 20)) and len(content) <= _SIZE_LIMIT:
                content += chunk
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if len(content) > _SIZE_LIMIT:
        raise InputError(f"{path} is no mail: it is larger than {_SIZE_LIMIT >> 20} MiB")
    return bytes(content)


# --- the facts ---------------------------------------------------------------------------------------------


def _explained(
    report: Report, marked: Marked, known: Surroundings, kept: Kept | None, store: str | None
) -> dict[str, Any]:
    from mailbound.inbound import findings

    at = kept.fetched_at if kept else datetime.now(UTC)
    store_id = kept.store_id if kept else _store(report, known, store)
    arrived = findings.Arrived(kept.id if kept else None, store_id, at)
    found = findings.find(report, arrived, keys=known.keys, rules=known.rules)
    clues = _clues(report, known, at)
    return {
        "kind": report.kind,
        "why": report.why,
        "decided_by": _deciding(marked),
        "part": report.part,
        "subject": report.subject,
        "sender": report.sender,
        "reporting_mta": report.reporting_mta,
        "feedback_type": report.feedback_type,
        "mail": {"id": kept.id, "state": kept.state, "at": kept.fetched_at, "why": kept.why}
        if kept
        else None,
        "unchecked": known.missing,
        "clues": clues,
        "findings": [_finding(finding, known, clues) for finding in found],
        "recorded": [_recorded(row) for row in kept.bounces] if kept else [],
        "marks": _spans(marked),
    }


def _store(report: Report, known: Surroundings, wanted: str | None) -> int:
    """Return the number of the store whose mailbox a mail came to: the one it is addressed to, else the first."""
    from mailbound.database import stores

    if wanted is not None and wanted not in known.stores:
        raise InputError(f"--store: choose one of {', '.join(sorted(known.stores))}")
    if known.connection is None:
        return 0
    addressed = (name for name, address in known.stores.items() if _is_to(report, address))
    return stores.number(known.connection, wanted or next(addressed, None) or next(iter(known.stores)))


def _is_to(report: Report, address: str) -> bool:
    local, _, domain = address.lower().rpartition("@")
    ours = re.compile(rf"{re.escape(local)}(\+.*)?@{re.escape(domain)}")
    return any(ours.fullmatch(each.lower()) for each in report.delivered_to)


def _deciding(marked: Marked) -> list[dict[str, Any]]:
    """Return what decided the kind, each field on one line."""
    found: list[dict[str, Any]] = []
    for span in marked.spans:
        line = marked.lines[span.line]
        if span.mark is not Mark.KIND:
            continue
        if found and line.zone is not Zone.BODY and line.text[:1] in {" ", "\t"}:
            found[-1]["text"] += f" {line.text[span.begin : span.end]}"
        else:
            found.append({"line": line.first, "text": line.text[span.begin : span.end]})
    return found


def _spans(marked: Marked) -> list[dict[str, Any]]:
    """Return the marks with the lines of the file, counted from 1, and the characters of their text, from 0."""
    return [
        {
            "mark": span.mark,
            "line": line.first,
            "last_line": line.last,
            "begin": span.begin,
            "end": span.end,
            "text": line.text[span.begin : span.end],
        }
        for span in marked.spans
        for line in (marked.lines[span.line],)
    ]


def _clues(report: Report, known: Surroundings, now: datetime) -> list[dict[str, Any]]:
    from mailbound import correlate

    return [_clue(clue, known, now) for clue in correlate.clues(report)]


def _clue(clue: Clue, known: Surroundings, now: datetime) -> dict[str, Any]:
    from mailbound import tokens
    from mailbound.inbound import findings

    doubt = "not checked" if known.missing else findings.doubt(clue, known.keys, now=now)
    token = None if doubt else tokens.verify(clue.token, known.keys, now=now)
    facts = {"carrier": clue.carrier, "token": clue.token, "genuine": token is not None, "doubt": doubt}
    if token is not None and token.purpose is tokens.Purpose.UNSUBSCRIBE:
        return facts | {"recipient": token.subject, "store": token.store}
    if token is not None:
        return facts | {"delivery": token.subject, "attempt": token.attempt}
    return facts


def _finding(finding: Finding, known: Surroundings, clues: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    verdict = finding.verdict
    rule = known.rules.by_name.get(verdict.rule)
    evidence, doubt = _evidence(finding, known, clues)
    would_be = _decision(finding, known, evidence or Evidence.UNSIGNED)
    return {
        "recipient": finding.addresses[-1] if finding.addresses else "",
        "action": finding.action,
        "status": str(verdict.status or ""),
        "diagnostic": finding.diagnostic,
        "remote_mta": finding.remote_mta,
        "category": verdict.category,
        "fault": verdict.fault,
        "permanent": verdict.permanent,
        "rule": verdict.rule,
        "rule_says": _telling(rule, finding.diagnostic),
        "rule_example": rule.example if rule else "",
        "rule_source": rule.source if rule else "",
        "evidence": evidence,
        "evidence_why": doubt,
        "delivery": finding.delivery_id,
        **_told(would_be),
        "if_genuine": None
        if evidence is Evidence.SIGNED
        else _told(_decision(finding, None, Evidence.SIGNED)),
    }


def _evidence(
    finding: Finding, known: Surroundings, clues: Sequence[Mapping[str, Any]]
) -> tuple[Evidence | None, str]:
    """Return the evidence, None if nobody can tell here, and why it is no better."""
    from mailbound.database import bounces

    if not clues:
        return Evidence.UNSIGNED, "no token of ours stands where our own message would have carried one"
    if known.connection is None:
        return None, "its tokens cannot be checked here"
    if finding.evidence is Evidence.UNSIGNED:
        return Evidence.UNSIGNED, str(clues[0]["doubt"] or "its token is not one for this kind of mail")
    doubt = bounces.doubt(known.connection, finding)
    return Evidence.UNSIGNED if doubt else Evidence.SIGNED, doubt


def _decision(finding: Finding, known: Surroundings | None, evidence: Evidence) -> Decision:
    """Return what the policy makes of a finding: with all that is known, else as the first that is ever heard."""
    from mailbound import config, policy
    from mailbound.database import bounces

    if known and known.connection is not None:
        return bounces.consider(known.connection, finding, limits=known.limits)
    sign = policy.Sign(finding.action, finding.verdict, evidence)
    return policy.decide(sign, policy.History(), now=finding.at, limits=config.Policy())


def _telling(rule: classify.Rule | None, diagnostic: str) -> str:
    """Return the words of a diagnostic by which a rule fits it, "" if it fits by a code."""
    from mailbound.classify import normal

    text = normal.text(diagnostic)
    found = (re.search(pattern, text) for pattern in rule.text) if rule else iter(())
    return next((match[0] for match in found if match), "")


def _told(decision: Decision) -> dict[str, Any]:
    return {
        "would_be": decision.disposition,
        "since": decision.why,
        "status_would_be": decision.status.status if decision.status else None,
        "until": decision.status.until if decision.status else None,
        "opt_in_would_be": "out" if decision.opt_out else None,
        "whole_address": decision.whole_address,
        "delivery_event": decision.delivery,
    }


def _recorded(row: Any) -> dict[str, Any]:
    names = ("id", "at", "address", "action", "status", "category", "rule", "disposition", "why")
    return {name: getattr(row, name) for name in names}
