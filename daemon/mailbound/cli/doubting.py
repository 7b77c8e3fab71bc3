"""`mailbound activity in-doubt` and `settle`: deliveries of which nobody knows whether they were sent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailbound.cli import bars, steering, terminal
from mailbound.errors import InputError

if TYPE_CHECKING:
    from mailbound import tokens

_AT_ONCE = 500


def in_doubt(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only of this activity.", show_default=False)
    ] = None,
    *,
    json: terminal.Json = False,
) -> None:
    """List deliveries whose final dot was never answered.

    The relay may have sent them, or not. They wait for you where the activity says `--in-doubt hold`.
    """
    from mailbound import config
    from mailbound.database import activities, doubtful, stores, token_keys

    settings = config.load(context.obj)
    with terminal.open_database(context) as database, database.look() as connection:
        activity_id = activities.find(connection, name).id if name is not None else None
        rows = doubtful.found(connection, activity_id=activity_id)
        keys = token_keys.verifying(connection)
        domains = {
            stores.number(connection, each): store.inbound.address.rpartition("@")[2]
            for each, store in settings.stores.items()
        }
    if json:
        terminal.print_json([_plain(row, keys.get(row.key_id), domains.get(row.store_id)) for row in rows])
    elif rows:
        _show(rows)
    else:
        terminal.say("nothing is in doubt")


def settle(
    context: typer.Context,
    name: steering.Name,
    deliveries: Annotated[
        list[int] | None,
        typer.Argument(
            metavar="[DELIVERY]...",
            help="Which of them, as `activity in-doubt` lists them [default: all].",
            show_default=False,
        ),
    ] = None,
    *,
    sent: Annotated[bool, typer.Option("--sent", help="They were sent: the relay's log says so.")] = False,
    resend: Annotated[
        bool, typer.Option("--resend", help="Send them again, with the same Message-ID.")
    ] = False,
) -> None:
    """Say what became of deliveries in doubt: sent, or to send again.

    A run that has ended sends again for them, unless it has expired. What a report tells later still counts.
    """
    from mailbound.database import activities, doubtful

    if sent == resend:
        raise InputError("say --sent or --resend")
    now, count = datetime.now(UTC), 0
    with terminal.open_database(context) as database:
        with database.look() as connection:
            activity = activities.find(connection, name)
            ids = _chosen(doubtful.found(connection, activity_id=activity.id), deliveries)
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE]
            with database.begin() as connection:
                if sent:
                    count += doubtful.was_sent(connection, some, who=terminal.who(), now=now)
                else:
                    count += doubtful.send_again(connection, some, now=now)
    counted = terminal.counted(count, "delivery", "deliveries")
    terminal.say(f"{counted} of {activity.name} {'counted as sent' if sent else 'to be sent again'}")


def _plain(row: Any, key: tokens.Key | None, domain: str | None) -> dict[str, Any]:
    """Return a delivery in doubt as plain values, with the Message-ID that the relay's log knows it by."""
    from mailbound.tokens import Purpose, for_delivery

    names = ("id", "run_id", "activity", "external_id", "address", "settled_at", "attempt", "reply")
    message_id = None
    if key is not None and domain is not None:
        token = for_delivery(key, Purpose.MESSAGE_ID, row.id, attempt=0, day=row.day)
        message_id = f"<{token}@{domain}>"
    return {name: getattr(row, name) for name in names} | {"message_id": message_id}


def _chosen(rows: Sequence[Any], wanted: list[int] | None) -> list[int]:
    known = [row.id for row in rows]
    if not known:
        raise InputError("nothing of it is in doubt")
    for number in wanted or ():
        if number not in known:
            raise InputError(
                f"delivery {number} is not in doubt; `mailbound activity in-doubt` lists what is"
            )
    return list(dict.fromkeys(wanted)) if wanted else known


def _show(rows: Sequence[Any]) -> None:
    told = [
        (row.id, f"{row.activity}, run {row.run_id}", row.address or "erased", row.settled_at, row.reply)
        for row in rows
    ]
    bars.table(
        ("delivery", "activity", "address", "since", "why"), told, spare=("why", "since"), long="address"
    )
    bars.line(
        "The relay's log knows them by address, or by the Message-ID that --json shows. Then say what became of them: "
        "`mailbound activity settle NAME --sent`, or `--resend`."
    )
