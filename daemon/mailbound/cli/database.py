"""`mailbound database`: the schema."""

from __future__ import annotations

import typer

from mailbound.cli import terminal

app = typer.Typer(no_args_is_help=True, help="Look after the database.")


@app.command()
def upgrade(context: typer.Context) -> None:
    """Bring the schema to this version's. The daemon does the same when it starts."""
    from mailbound import config
    from mailbound.database import engine, schema

    database = engine.Database(config.load(context.obj).database.connect_url())
    try:
        before, after = schema.upgrade(database)
    finally:
        database.close()
    if before == after:
        terminal.say(f"the schema is at {after} already")
    else:
        terminal.say(f"the schema went from {before or 'nothing'} to {after}")
