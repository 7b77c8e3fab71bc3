"""`mailbound bounce`: what came back, what it means, and why we think so."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailbound.cli import replaying, terminal
from mailbound.errors import InputError
from mailbound.model import Disposition, Kind

if TYPE_CHECKING:
    from mailbound import classify, tokens
    from mailbound.database.bounces import Finding
    from mailbound.reading import Report

app = typer.Typer(no_args_is_help=True, help="Look at bounces and at inbound mail.")

_KINDS = {
    Kind.BOUNCE: "bounce",
    Kind.DELAY: "delay",
    Kind.SUCCESS: "success",
    Kind.COMPLAINT: "arf",
    Kind.AUTO_REPLY: "autoreply",
}
"""The kinds as `bounce read` names them; all others are `ordinary`."""


@app.command()
def read() -> None:
    """Read mail files whose paths stand on standard input, one a line; print one JSON object for each.

    Nothing is recorded and no configuration is needed: this shows how a mail is understood.
    """
    from mailbound import classify

    rules = classify.Rules.load()
    for line in sys.stdin:
        path = line.rstrip("\n")
        if path:
            print(jsonlib.dumps({"path": path, **_understood(Path(path), rules)}), flush=True)


def _understood(path: Path, rules: classify.Rules) -> dict[str, Any]:
    from mailbound import classify, reading
    from mailbound.model import Action, Fault

    report = reading.read(_content(path))
    recipients = []
    for recipient in report.recipients:
        if recipient.action not in {Action.FAILED, Action.DELAYED}:
            continue  # what arrived, or was only complained of, is no trouble of an address
        verdict = classify.classify(recipient, rules)
        failed = recipient.action is Action.FAILED
        recipients.append(
            {
                "address": recipient.final_recipient,
                "hard": failed and verdict.permanent and verdict.fault is Fault.ADDRESS,
                "perm": failed and classify.failure_class(recipient, verdict, rules) == 5,
                "status": str(verdict.status) if verdict.status else "",
                "reason": classify.reason(verdict, rules),
                "rule": verdict.rule,
            }
        )
    return {"kind": _KINDS.get(report.kind, "ordinary"), "recipients": recipients}


@app.command("list")
def list_(
    context: typer.Context,
    *,
    activity: Annotated[str | None, typer.Option(help="Only of this activity.")] = None,
    quarantined: Annotated[bool, typer.Option("--quarantined", help="Only what nobody vouches for.")] = False,
    mail: Annotated[
        bool, typer.Option("--mail", help="Inbound mails of every kind instead of bounces.")
    ] = False,
    kind: Annotated[list[Kind] | None, typer.Option(help="Only mails of these kinds, with --mail.")] = None,
    limit: Annotated[int, typer.Option(help="How many, the latest first.", min=1)] = 50,
    json: terminal.Json = False,
) -> None:
    """List the latest bounces, or the latest inbound mails."""
    from mailbound.database import bounces, inbound_mail

    with terminal.open_database(context) as database, database.look() as connection:
        if mail:
            rows = inbound_mail.recent(connection, kinds=kind or (), limit=limit)
            columns = ["id", "store", "fetched_at", "state", "kind", "subject", "why"]
        else:
            dispositions = (Disposition.QUARANTINED,) if quarantined else ()
            rows = bounces.recent(connection, activity=activity, dispositions=dispositions, limit=limit)
            columns = [
                "id",
                "at",
                "address",
                "action",
                "status",
                "category",
                "evidence",
                "disposition",
                "why",
            ]
    if json:
        terminal.print_json([{name: getattr(row, name) for name in columns} for row in rows])
    elif rows:
        terminal.table(
            [name.replace("_at", "") for name in columns],
            [[getattr(row, n) for n in columns] for row in rows],
        )
    else:
        terminal.say("there is nothing to list yet")


@app.command()
def show(
    context: typer.Context,
    bounce: Annotated[int, typer.Argument(help="The number of a bounce, as `bounce list` shows it.")],
    *,
    raw: Annotated[bool, typer.Option("--raw", help="Print the mail itself.")] = False,
    json: terminal.Json = False,
) -> None:
    """Show one bounce with its evidence, its verdict and its effects."""
    from mailbound.database import bounces, inbound_mail

    with terminal.open_database(context) as database, database.look() as connection:
        row = bounces.find(connection, bounce)
        effects = bounces.effects(connection, bounce)
        if raw:
            if row.mail_id is None:
                raise InputError(f"bounce {bounce} was an SMTP reply; there is no mail")
            sys.stdout.buffer.write(inbound_mail.raw(connection, row.mail_id))
            return
    if json:
        terminal.print_json({"bounce": row, "effects": effects})
        return
    terminal.facts([(name.replace("_", " "), value) for name, value in row._mapping.items()])  # noqa: SLF001 - its public name
    if effects:
        columns = ["at", "kind", "before", "after", "cause"]
        terminal.table(
            columns, [[getattr(each, name) for name in columns] for each in effects], title="what it changed"
        )


@app.command()
def explain(
    context: typer.Context,
    mail: Annotated[
        str, typer.Argument(help="A file, or the number of a kept mail; - reads standard input.")
    ],
    *,
    store: Annotated[str | None, typer.Option(help="Whose mailbox it came to [default: the first].")] = None,
    json: terminal.Json = False,
) -> None:
    """Say how a mail is understood, and what it would do, without doing it."""
    from mailbound import classify, config, reading
    from mailbound.database import bounces, inbound_mail, nodes, stores
    from mailbound.inbound import findings

    settings = config.load(context.obj)
    rules = classify.Rules.load()
    with terminal.open_database(context) as database, database.look() as connection:
        is_number = mail.isdecimal() and not Path(mail).exists()
        content = inbound_mail.raw(connection, int(mail)) if is_number else _content(Path(mail))
        report = reading.read(content)
        store_id = stores.number(connection, store or next(iter(settings.stores)))
        arrived = findings.Arrived(None, store_id, datetime.now(UTC))
        keys = nodes.keys(connection)
        found = findings.find(report, arrived, keys=keys, rules=rules)
        decisions = [bounces.consider(connection, finding, limits=settings.policy) for finding in found]
    explained = {
        "kind": report.kind,
        "why": report.why,
        "part": report.part,
        "subject": report.subject,
        "reporting_mta": report.reporting_mta,
        "clues": _clues(report, keys),
        "findings": [_finding(finding, decision) for finding, decision in zip(found, decisions, strict=True)],
    }
    if json:
        terminal.print_json(explained)
    else:
        _print(explained)


def _clues(report: Report, keys: Mapping[int, tokens.Key]) -> list[dict[str, Any]]:
    from mailbound import correlate, tokens

    now = datetime.now(UTC)
    return [
        {
            "carrier": clue.carrier,
            "token": clue.token,
            "genuine": tokens.verify(clue.token, keys, now=now) is not None,
        }
        for clue in correlate.clues(report)
    ]


def _finding(finding: Finding, decision: Any) -> dict[str, Any]:
    return {
        "recipient": finding.addresses[-1] if finding.addresses else "",
        "action": finding.action,
        "status": str(finding.verdict.status or ""),
        "diagnostic": finding.diagnostic,
        "remote mta": finding.remote_mta,
        "category": finding.verdict.category,
        "fault": finding.verdict.fault,
        "permanent": finding.verdict.permanent,
        "rule": finding.verdict.rule,
        "evidence": finding.evidence,
        "delivery": finding.delivery_id,
        "would be": decision.disposition,
        "since": decision.why,
        "status would be": decision.status.status if decision.status else None,
        "opt-in would be": "out" if decision.opt_out else None,
    }


def _print(explained: Mapping[str, Any]) -> None:
    names = ("kind", "why", "part", "subject", "reporting_mta")
    terminal.facts([(name.replace("_", " "), explained[name]) for name in names])
    clues: Sequence[Mapping[str, Any]] = explained["clues"]
    if clues:
        rows = [
            (clue["carrier"], clue["token"], "genuine" if clue["genuine"] else "not ours") for clue in clues
        ]
        terminal.table(["carrier", "token", ""], rows, title="clues to the delivery")
    else:
        terminal.say("clues          none: no token of ours stands in it")
    for finding in explained["findings"]:
        terminal.say("")
        terminal.facts(list(finding.items()))


def _content(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


app.command("replay")(replaying.replay)
app.command("undo")(replaying.undo)
