"""`mailbound segment`: named conditions over recipients, and fixed lists of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from mailbound.cli import terminal
from mailbound.errors import InputError

app = typer.Typer(no_args_is_help=True, help="Named conditions over recipients, and fixed lists of them.")

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The segment's name.")]
_Store = Annotated[
    str | None, typer.Option("--store", metavar="NAME", help="Count who opted in for it, too.")
]


@app.command()
def create(
    context: typer.Context,
    name: _Name,
    where: Annotated[
        str | None,
        typer.Option(metavar="CONDITION", help="Such as: country = 'DE' and lifetime_value > 100"),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--import", metavar="FILE", help="A fixed list: an external_id or address on each line."
        ),
    ] = None,
) -> None:
    """Create a segment from a condition or a file. Of a file the lines count, or its first column."""
    from mailbound.database import segments

    if (where is None) is (file is None):
        raise InputError("say either --where CONDITION or --import FILE")
    with terminal.open_database(context) as database:
        if where is not None:
            with database.begin() as connection:
                segments.create(connection, name, where, now=datetime.now(UTC))
        else:
            _import(database, name, str(file))
        with database.look() as connection:
            size = segments.count(connection, segments.find(connection, name))
    terminal.say(f"segment {name}: {terminal.counted(size, 'recipient')}")


def _import(database: Any, name: str, file: str) -> None:
    from mailbound.cli import importing

    with importing.opened(file) as stream:
        faults = importing.import_list(
            database, importing.File(file, stream, "csv"), name, now=datetime.now(UTC)
        )
    for line, reason in faults.first:
        terminal.warn(f"line {line}: {reason}")
    if faults.count:
        lines = terminal.counted(faults.count, "line")
        terminal.warn(f"{lines} of no use: {faults.path}")


@app.command()
def count(context: typer.Context, name: _Name, store: _Store = None, json: terminal.Json = False) -> None:
    """Say how many recipients a segment has now."""
    from mailbound.database import segments, stores

    with terminal.open_database(context) as database, database.look() as connection:
        row = segments.find(connection, name)
        numbers = {"recipients": segments.count(connection, row)}
        if store is not None:
            numbers["opted_in"] = segments.count_opted_in(connection, row, stores.number(connection, store))
    if json:
        terminal.print_json(numbers)
        return
    terminal.say(terminal.counted(numbers["recipients"], "recipient"))
    if store is not None:
        terminal.say(f"{terminal.number(numbers['opted_in'])} opted in for {store}")


@app.command()
def show(
    context: typer.Context,
    name: _Name,
    limit: Annotated[int, typer.Option(min=1, help="How many recipients.")] = 20,
    json: terminal.Json = False,
) -> None:
    """Show a segment's condition and its first recipients."""
    from mailbound.database import segments

    with terminal.open_database(context) as database, database.look() as connection:
        row = segments.find(connection, name)
        rows = segments.sample(connection, row, limit=limit)
        size = segments.count(connection, row)
    names = ("external_id", "address", "name", "attributes")
    if json:
        people = [{each: getattr(person, each) for each in names} for person in rows]
        terminal.print_json(
            {"name": row.name, "condition": row.condition, "recipients": size, "first": people}
        )
        return
    terminal.facts(
        [("segment", row.name), ("condition", _condition(row)), ("recipients", terminal.number(size))]
    )
    terminal.say("")
    told = [(row.external_id, row.address, row.name, terminal.pairs(row.attributes)) for row in rows]
    terminal.table(names, told)


@app.command("list")
def list_(context: typer.Context, json: terminal.Json = False) -> None:
    """List all segments, the newest first."""
    from mailbound.database import segments

    with terminal.open_database(context) as database, database.look() as connection:
        rows = segments.everything(connection)
    if json:
        terminal.print_json(
            [{"name": row.name, "condition": row.condition, "created_at": row.created_at} for row in rows]
        )
        return
    terminal.table(
        ("name", "condition", "created_at"), [(row.name, _condition(row), row.created_at) for row in rows]
    )


def _condition(row: Any) -> str:
    return "(a fixed list)" if row.condition is None else str(row.condition)
