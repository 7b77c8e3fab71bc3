"""`mailbound recipient suppress`, `unsuppress` and `suppressed`: who gets nothing, whatever they wish."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from mailbound.cli import terminal

_What = Annotated[str, typer.Argument(metavar="ADDRESS|DOMAIN", help="An address, or a whole domain.")]


def suppress(
    context: typer.Context,
    what: _What,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for those who ask later.")] = "operator",
    until: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="'2026-12-01 09:00', 'in 2 weeks' [default: for good]."),
    ] = None,
) -> None:
    """Send nothing to an address or a domain. Opt-ins stay as they are."""
    from mailbound import config, schedule
    from mailbound.database import changes, suppressions
    from mailbound.errors import InputError

    now = datetime.now(UTC)
    zone = config.load(context.obj).sending.time_zone.key
    ends = schedule.parse_when(until, zone, now) if until is not None else None
    if ends is not None and ends <= now:
        raise InputError(f"--until: {terminal.cell(ends)} is over")
    if not 1 <= len(reason) <= 64:
        raise InputError("--reason: it has 1 to 64 characters")
    cause = changes.Cause("command", who=terminal.who())
    with terminal.open_database(context) as database, database.begin() as connection:
        why = suppressions.Suppression(reason, ends)
        changed = suppressions.suppress(connection, what, why, cause=cause, now=now)
    span = f"until {terminal.cell(ends)}" if ends else "for good"
    terminal.say(f"{what} is suppressed {span}" + ("" if changed else ", as before"))


def unsuppress(context: typer.Context, what: _What) -> None:
    """Let an address or a domain have mail again. Only who is opted in gets any."""
    from mailbound.database import changes, suppressions

    cause = changes.Cause("command", who=terminal.who())
    with terminal.open_database(context) as database, database.begin() as connection:
        changed = suppressions.unsuppress(connection, what, cause=cause, now=datetime.now(UTC))
    terminal.say(f"{what} is not suppressed" + (" any more" if changed else ", nor was it"))


def suppressed(context: typer.Context, json: terminal.Json = False) -> None:
    """List what is suppressed, the latest first. People who were erased have no name left to be listed by."""
    from mailbound.database import suppressions

    columns = ("what", "reason", "until", "created_at")
    with terminal.open_database(context) as database, database.look() as connection:
        rows = suppressions.everything(connection)
    if json:
        terminal.print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif rows:
        terminal.table(columns, [tuple(row) for row in rows])
    else:
        terminal.say("nothing is suppressed")
