"""`mailbound bounce`: what came back, what it means, and why we think so."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailbound.cli import bounce_views, explaining, holding, quarantining, replaying, terminal
from mailbound.errors import InputError
from mailbound.model import Disposition, Kind

if TYPE_CHECKING:
    from mailbound import classify

app = typer.Typer(no_args_is_help=True, help="Look at what came back, and at what it means.")

_KINDS = {
    Kind.BOUNCE: "bounce",
    Kind.DELAY: "delay",
    Kind.SUCCESS: "success",
    Kind.COMPLAINT: "arf",
    Kind.AUTO_REPLY: "autoreply",
    Kind.CHALLENGE: "autoreply",
    Kind.DISPOSITION: "autoreply",
    Kind.UNRECOGNISED: "bounce",
}
"""The kinds as `bounce read` names them; all others are `ordinary`."""


@app.command()
def read() -> None:
    """Read mail files, and print what each says as one line of JSON.

    Their paths stand on standard input, one a line. Nothing is recorded and no configuration is needed: this
    shows how a mail is understood. A file that cannot be read has an `error` instead; the exit status is then 2.
    """
    from mailbound import bounds, classify

    rules = classify.Rules.load()
    unread = 0
    for line in sys.stdin:
        path = line.rstrip("\n")
        if not path:
            continue
        try:
            said = _understood(Path(path), rules)
        except (InputError, bounds.Unreadable) as error:
            said, unread = {"error": str(error)}, unread + 1
        print(jsonlib.dumps({"path": path, **said}), flush=True)
    if unread:
        raise InputError(f"{terminal.counted(unread, 'file')} could not be read")


def _understood(path: Path, rules: classify.Rules) -> dict[str, Any]:
    from mailbound import bounds, classify, reading
    from mailbound.model import Action, Fault

    content = explaining.content_of(path)
    with bounds.kept(str(path)):
        report = reading.read(content)
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
    activity: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this activity.")] = None,
    quarantined: Annotated[bool, typer.Option("--quarantined", help="Only what nobody vouches for.")] = False,
    held: Annotated[bool, typer.Option("--held", help="Only what waits for you.")] = False,
    hold: Annotated[
        int | None,
        typer.Option("--hold", metavar="NUMBER", help="Only of this hold, as `bounce held` shows it."),
    ] = None,
    run: Annotated[int | None, typer.Option("--run", metavar="NUMBER", help="Only of this run.")] = None,
    mail: Annotated[
        bool, typer.Option("--mail", help="Inbound mails of every kind instead of bounces.")
    ] = False,
    kind: Annotated[
        list[Kind] | None,
        typer.Option(metavar="KIND", help=f"Only mails of this kind (repeatable): {', '.join(Kind)}."),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="COUNT", help="How many, the latest first.", min=1)] = 50,
    json: terminal.Json = False,
) -> None:
    """List the latest bounces, or the latest inbound mails."""
    from mailbound.database import bounces, inbound_mail

    mails = mail or bool(kind)
    which = bounces.Which(activity, run, hold, _dispositions(quarantined=quarantined, held=held))
    if mails and which != bounces.Which():
        raise InputError("--mail and --kind are about mails, the other options about bounces")
    with terminal.open_database(context) as database, database.look() as connection:
        if mails:
            rows = inbound_mail.recent(connection, kinds=kind or (), limit=limit)
        else:
            rows = bounces.recent(connection, which, limit=limit)
    if json:
        plain = bounce_views.mail_as_json if mails else bounce_views.bounce_as_json
        terminal.print_json([plain(row) for row in rows])
    elif not rows:
        terminal.say(f"there is no such {'mail' if mails else 'bounce'}")
    elif mails:
        bounce_views.mails(rows)
    else:
        bounce_views.bounces(rows)


def _dispositions(*, quarantined: bool, held: bool) -> tuple[Disposition, ...]:
    wanted = {Disposition.QUARANTINED: quarantined, Disposition.HELD: held}
    return tuple(disposition for disposition, is_wanted in wanted.items() if is_wanted)


@app.command()
def show(
    context: typer.Context,
    bounce: Annotated[
        int, typer.Argument(metavar="NUMBER", help="The number of a bounce, as `bounce list` shows it.")
    ],
    *,
    raw: Annotated[bool, typer.Option("--raw", help="Print the mail itself.")] = False,
    json: terminal.Json = False,
) -> None:
    """Show one bounce: its evidence, verdict and effects."""
    from mailbound.database import bounces, effects, inbound_mail, runs

    with terminal.open_database(context) as database, database.look() as connection:
        row = bounces.find(connection, bounce)
        caused = effects.of_bounce(connection, bounce)
        run = runs.find(connection, row.run_id) if row.run_id is not None else None
        if raw:
            if row.mail_id is None:
                raise InputError(f"bounce {bounce} was an SMTP reply; there is no mail")
            sys.stdout.buffer.write(inbound_mail.raw(connection, row.mail_id))
            return
    if json:
        terminal.print_json({"bounce": row, "effects": caused})
    else:
        bounce_views.bounce(row, caused, f"run {run.id} of {run.activity}" if run else "no run")


app.command("explain")(explaining.explain)
app.command("held")(holding.held)
app.command("release")(holding.release)
app.command("discard")(holding.discard)
app.command("quarantine")(quarantining.quarantine)
app.command("accept")(quarantining.accept)
app.command("drop")(quarantining.drop)
app.command("replay")(replaying.replay)
app.command("undo")(replaying.undo)
