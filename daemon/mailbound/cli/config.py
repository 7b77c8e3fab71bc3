"""`mailbound config`: look at the configuration before the daemon does, and at what it signs with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mailbound.cli import signing

app = typer.Typer(
    name="config", help="Check, show and explain the configuration; signing keys.", no_args_is_help=True
)


@app.command()
def check(
    context: typer.Context,
    *,
    secrets: Annotated[
        bool, typer.Option(help="Whether a missing password is a fault; outside the service it is none.")
    ] = True,
) -> None:
    """Name every fault at once, and what deserves a second look."""
    from mailbound import config

    path: Path = context.obj
    loaded = config.load(path, secrets=secrets)
    for warning in loaded.warnings:
        typer.echo(f"{path}: warning: {warning}", err=True)
    typer.echo(f"{path} is good")


@app.command()
def show(context: typer.Context) -> None:
    """Print the configuration as it takes effect. Defaults are filled in, secrets masked."""
    from mailbound import config

    typer.echo(config.show(config.load(context.obj)), nl=False)


@app.command()
def explain(context: typer.Context) -> None:
    """Say in words what the configuration makes mailbound do."""
    from mailbound import config

    typer.echo(config.explain(config.load(context.obj)), nl=False)


app.command("keys")(signing.keys)
app.command("rotate-key")(signing.rotate_key)
