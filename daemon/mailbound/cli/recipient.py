"""`mailbound recipient`: bring people in, look at one, change what they wish, forget them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailbound.cli import suppressing, terminal
from mailbound.errors import InputError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from mailbound.cli import importing

app = typer.Typer(no_args_is_help=True, help="People: import them, look at one, change what they wish.")

_Who = Annotated[str, typer.Argument(metavar="EXTERNAL_ID|ADDRESS", help="Who it is about.")]
_Store = Annotated[str, typer.Option("--store", metavar="NAME", help="The store; '*' means all.")]


@app.command("import")
def import_(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV or JSON lines; - is standard input.")],
    *,
    store: Annotated[str | None, typer.Option(metavar="NAME", help="Whose opt-ins the file has.")] = None,
    mapped: Annotated[
        list[str] | None, typer.Option("--map", metavar="FIELD=COLUMN", help="Which column is what.")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", metavar="csv|jsonl", help="[default: guess]")
    ] = None,
    opt_in_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The same as --map opt_in=COLUMN.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="A CSV column whose numbers are text.")
    ] = None,
    json: terminal.Json = False,
) -> None:
    """Import people by their external_id. What is the same already stays as it is.

    The columns are external_id, address (or email), name, locale, time_zone, opt_in and consent_at, unless --map
    says otherwise; all others become attributes. Rows that cannot be used go to FILE.faults.csv with the reason.
    """
    from mailbound.cli import importing

    if form not in {None, "csv", "jsonl"}:
        raise InputError(f"--format {form}: it is csv or jsonl")
    if opt_in_column:
        mapped = [*(mapped or ()), f"opt_in={opt_in_column}"]
    with terminal.open_database(context) as database, importing.opened(file) as stream:
        summary = importing.import_file(
            database,
            importing.File(file, stream, form),
            mapped=mapped or (),
            as_text=text or (),
            store=store,
            who=terminal.who(),
            now=datetime.now(UTC),
        )
    _tell(summary, as_json=json)


def _tell(summary: importing.Summary, *, as_json: bool) -> None:
    numbers = summary.numbers()
    if as_json:
        terminal.print_json(numbers | {"faults_file": summary.faults_file or None})
    else:
        shown = [
            f"{terminal.number(count)} {name}" for name, count in numbers.items() if count or name == "read"
        ]
        terminal.say(", ".join(shown).replace("_", " ").replace("faults", "faulty"))
        for line, reason in summary.first_faults:
            terminal.warn(f"line {line}: {reason}")
        if summary.faults:
            rows = terminal.counted(summary.faults, "faulty row")
            terminal.warn(f"{rows}: {summary.faults_file}")
    if summary.read and summary.faults == summary.read:
        raise InputError("not one row could be used")


@app.command()
def show(context: typer.Context, who: _Who, json: terminal.Json = False) -> None:
    """Show a person. That is the address, its status, wishes, and what happened last."""
    from mailbound.database import recipients

    with terminal.open_database(context) as database, database.look() as connection:
        found = recipients.matches(connection, who)
        if not found:
            raise InputError(f"there is no recipient {who!r}: neither an external_id nor an address is so")
        people = [_portrait(connection, row) for row in found]
    if json:
        terminal.print_json(people)
        return
    for index, person in enumerate(people):
        if index:
            terminal.say("")
        _print(person)


def _portrait(connection: sa.Connection, row: Any) -> dict[str, Any]:
    from mailbound.database import recipients, suppressions

    status = recipients.status(connection, row.address_id)
    suppression = suppressions.of_address(connection, row.address_id, now=datetime.now(UTC))
    ledger = recipients.last_changes(connection, row.id, row.address_id, limit=10)
    sent = recipients.last_deliveries(connection, row.id, limit=10)
    return {
        "external_id": row.external_id,
        "address": row.address,
        "name": row.name,
        "locale": row.locale,
        "time_zone": row.time_zone,
        "attributes": row.attributes,
        "status": status.status,
        "category": status.category,
        "since": status.since,
        "until": status.until,
        "suppressed": str(suppression) if suppression else None,
        "created_at": row.created_at,
        "changed_at": row.changed_at,
        "opt_ins": list(recipients.wishes(connection, row.id)),
        "changes": [
            {name: getattr(line, name) for name in ("at", "kind", "store", "before", "after", "cause", "who")}
            for line in ledger
        ],
        "deliveries": [
            {
                name: getattr(each, name)
                for name in ("id", "activity", "occurrence_at", "state", "reason", "settled_at")
            }
            for each in sent
        ],
    }


def _print(person: dict[str, Any]) -> None:
    status = f"{person['status']} ({person['category']})" if person["category"] else person["status"]
    terminal.facts(
        [
            *((name, person[name]) for name in ("external_id", "address", "name", "locale", "time_zone")),
            ("attributes", terminal.pairs(person["attributes"])),
            ("status", status),
            *((name, person[name]) for name in ("since", "until", "suppressed", "created_at", "changed_at")),
        ]
    )
    wishes = [(each.store, each.receive, each.source, each.changed_at) for each in person["opt_ins"]]
    _part("opt-ins", ("store", "receive", "source", "changed_at"), wishes)
    for part in ("changes", "deliveries"):
        rows = person[part]
        _part(part, tuple(rows[0]) if rows else (), [tuple(row.values()) for row in rows])


def _part(title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    if rows:
        terminal.say("")
        terminal.table(columns, rows, title=title)


@app.command("opt-in")
def opt_in(context: typer.Context, who: _Who, store: _Store) -> None:
    """Note that a person wants mail of a store."""
    _set_wish(context, who, store, receive=True)


@app.command("opt-out")
def opt_out(context: typer.Context, who: _Who, store: _Store) -> None:
    """Note that a person wants no mail of a store."""
    _set_wish(context, who, store, receive=False)


def _set_wish(context: typer.Context, who: str, store: str, *, receive: bool) -> None:
    from mailbound.database import changes, recipients, stores
    from mailbound.model import Source

    with terminal.open_database(context) as database, database.begin() as connection:
        row = recipients.find(connection, who)
        changed = changes.set_opt_in(
            connection,
            recipient_id=row.id,
            store_id=stores.number(connection, store),
            receive=receive,
            source=Source.OPERATOR,
            cause=changes.Cause("command", who=terminal.who()),
            now=datetime.now(UTC),
        )
    word = "in" if receive else "out"
    terminal.say(f"{row.external_id} is opted {word} for {store}" + ("" if changed else ", as before"))


@app.command()
def unsubscribe(
    context: typer.Context,
    token: Annotated[
        str, typer.Argument(help="What stands at the end of an unsubscribe link.", show_default=False)
    ],
) -> None:
    """Honour the token of an unsubscribe link. All who share the address leave the store with them.

    It is for the page that `web.unsubscribe_url` names: on a POST, never on a GET, since scanners follow links.
    """
    from mailbound import config
    from mailbound.database import bounces, token_keys
    from mailbound.inbound import findings

    limits = config.load(context.obj).policy
    now = datetime.now(UTC)
    with terminal.open_database(context) as database, database.begin() as connection:
        finding = findings.leave(token, keys=token_keys.verifying(connection), now=now)
        if finding is None:
            raise InputError("that is no unsubscribe token of ours")
        bounces.record(connection, finding, limits=limits)
    terminal.say("unsubscribed")


@app.command()
def reinstate(context: typer.Context, who: _Who) -> None:
    """Let an address be mailed again. The opt-ins that its hard bounce took are given back."""
    from mailbound.database import recipients

    with terminal.open_database(context) as database, database.begin() as connection:
        address_id = recipients.address_id(connection, who)
        changed, given_back = recipients.reinstate(
            connection, address_id, who=terminal.who(), now=datetime.now(UTC)
        )
    status = "is deliverable again" if changed else "was deliverable already"
    terminal.say(f"the address {status}; opt-ins given back: {given_back}")


for _each in (suppressing.suppress, suppressing.unsuppress, suppressing.suppressed):
    app.command()(_each)


@app.command()
def erase(
    context: typer.Context,
    who: _Who,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Forget a person for ever. The counts stay, and no import brings them back."""
    from mailbound.database import erasing, recipients

    with terminal.open_database(context) as database:
        with database.look() as connection:
            row = recipients.find(connection, who)
        if not yes:
            terminal.confirm(f"Erase {row.external_id}, {row.name or 'no name'}, {row.address}, for ever?")
        with database.begin() as connection:
            erasing.erase(connection, row.id, who=terminal.who(), now=datetime.now(UTC))
    terminal.say(f"{row.external_id} is erased")
