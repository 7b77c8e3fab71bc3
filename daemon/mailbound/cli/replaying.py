"""`mailbound bounce replay` and `undo`: put right what older rules, or a mistake of ours, made of the mail."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailbound.cli import since, terminal
from mailbound.errors import InputError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from mailbound.database.replaying import Difference

_PAGE = 200


def replay(
    context: typer.Context,
    *,
    since_: Annotated[
        str | None, typer.Option("--since", help="Only mail that came since: 7d, 12h or a date.")
    ] = None,
    rules: Annotated[list[Path] | None, typer.Option(help="A file of rules, read before ours.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
    ] = False,
    json: terminal.Json = False,
) -> None:
    """Read kept mail again with the rules of now.

    Who changes and how is shown, and applied in one transaction.
    """
    from mailbound import classify

    known = classify.Rules.load(*(rules or ()))
    start = since.moment(since_, now=datetime.now(UTC)) if since_ else None
    name = f"replay {datetime.now(UTC):%Y%m%d-%H%M%S}"
    with terminal.open_database(context) as database, database.begin() as connection:
        differences = _replay(context, connection, known, start, name)
        if dry_run:
            connection.rollback()
    if json:
        terminal.print_json({"replay": None if dry_run else name, "differences": differences})
        return
    if differences:
        fields = ("mail_id", "bounce_id", "address", "before", "after", "effect")
        rows = [[getattr(each, field) for field in fields] for each in differences]
        terminal.table(["mail", "bounce", "address", "before", "after", "and so"], rows)
    count = terminal.counted(len(differences), "bounce")
    if dry_run:
        terminal.say(f"{count} would change; nothing was changed")
    elif differences:
        terminal.say(f"{count} changed; `mailbound bounce undo --replay '{name}'` takes it back")
    else:
        terminal.say("nothing changes")


def _replay(
    context: typer.Context, connection: sa.Connection, rules: Any, start: datetime | None, name: str
) -> list[Difference]:
    from mailbound import bounds, config, reading
    from mailbound.database import inbound_mail, replaying, token_keys
    from mailbound.inbound import findings

    limits = config.load(context.obj).policy
    keys = token_keys.verifying(connection)
    differences: list[Difference] = []
    after = 0
    while mails := replaying.kept(connection, since=start, after=after, limit=_PAGE):
        for mail in mails:
            after = mail.id
            content = inbound_mail.find_raw(connection, mail.id)
            if content is None:
                continue
            with bounds.kept(f"mail {mail.id}"):
                report = reading.read(content)
            arrived = findings.Arrived(mail.id, mail.store_id, mail.fetched_at)
            found = findings.worth_recording(findings.find(report, arrived, keys=keys, rules=rules))
            differences += replaying.replay(
                connection, mail.id, report, found, limits=limits, name=name, now=datetime.now(UTC)
            )
    return differences


def undo(
    context: typer.Context,
    bounces: Annotated[
        list[int] | None, typer.Argument(help="The numbers of bounces.", show_default=False)
    ] = None,
    *,
    replay: Annotated[str | None, typer.Option(help="The name of a replay, as it said at its end.")] = None,
    hold: Annotated[
        int | None, typer.Option("--hold", metavar="NUMBER", help="All that was released of this hold.")
    ] = None,
) -> None:
    """Take back what bounces or a replay changed.

    That is, wherever the value still stands; what was changed since is left as it is.
    """
    from mailbound.database import bounces as known
    from mailbound.database import holds, undoing
    from mailbound.database.changes import Cause

    if sum([bool(bounces), bool(replay), hold is not None]) != 1:
        raise InputError("name bounces, a replay with --replay, or a hold with --hold")
    now = datetime.now(UTC)
    cause = Cause("command", who=terminal.who())
    with terminal.open_database(context) as database, database.begin() as connection:
        if replay:
            undone = undoing.undo_replay(connection, replay, cause=cause, now=now)
        else:
            numbers = [known.find(connection, number).id for number in bounces or ()]
            numbers += holds.released(connection, hold) if hold is not None else []
            undone = undoing.undo_bounces(connection, numbers, cause=cause, now=now)
    if replay and not undone.restored and not undone.overtaken:
        raise InputError(f"nothing in the ledger is of a replay {replay!r}, or it was taken back already")
    rows = [(line.kind, line.after, line.before or "nothing", "") for line in undone.restored]
    rows += [(line.kind, line.after, "", "left: changed since") for line in undone.overtaken]
    if rows:
        terminal.table(["kind", "from", "back to", ""], rows)
    terminal.say(f"{len(undone.restored)} taken back, {len(undone.overtaken)} left as they are")
