"""`mailbound config keys` and `rotate-key`: the keys by which a bounce proves that it is genuine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from mailbound.cli import bars, terminal
from mailbound.cli.bars import Styled

if TYPE_CHECKING:
    from mailbound.database.token_keys import Known

_STYLES = {"signs": "green", "verifies": "", "revoked": "red"}


def keys(context: typer.Context, json: terminal.Json = False) -> None:
    """List the signing keys, and what each is used for."""
    from mailbound.database import token_keys

    with terminal.open_database(context) as database, database.look() as connection:
        known = token_keys.everything(connection)
    if json:
        terminal.print_json(known)
    elif known:
        _show(known, datetime.now(UTC))
    else:
        terminal.say("there is no key yet; the first run makes one")


def rotate_key(
    context: typer.Context,
    *,
    revoke: Annotated[
        int | None,
        typer.Option(metavar="ID", help="Revoke this key: all that it signed counts as forged from now on."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before revoking.")] = False,
) -> None:
    """Sign what new runs send with a new key.

    The old key still verifies, so bounces of what was sent with it count, and its unsubscribe links work. Only a key
    that others know must be revoked; its unsubscribe links then end, too.
    """
    from mailbound.database import token_keys

    now = datetime.now(UTC)
    if revoke is not None and not yes:
        terminal.confirm(
            f"Bounces and unsubscribe links that key {revoke} signed will prove nothing. Revoke it?"
        )
    with terminal.open_database(context) as database, database.begin() as connection:
        if revoke is None:
            signs = token_keys.rotate(connection, now=now)
        else:
            signs = token_keys.revoke(connection, revoke, now=now)
    if revoke is None:
        terminal.say(f"key {signs.id} signs from the next run on; those before it still verify")
    else:
        terminal.say(f"key {revoke} is revoked, and what it signed is forged; key {signs.id} signs")


def _show(known: list[Known], now: datetime) -> None:
    rows = [
        (
            each.id,
            Styled(each.state, _STYLES[each.state]),
            each.created_at,
            _age(now - each.created_at),
            each.runs,
            terminal.cell(each.used_at) or "never",
        )
        for each in known
    ]
    bars.table(
        ("key", "state", "made", "age", "runs", "last run"), rows, spare=("made", "runs"), long="last run"
    )


def _age(span: timedelta) -> str:
    if span.days:
        return terminal.counted(span.days, "day")
    return f"{span.seconds // 3600} h" if span.seconds >= 3600 else f"{span.seconds // 60} min"
