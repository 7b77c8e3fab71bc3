"""The command `mailbound`: one file for each noun."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mailbound.errors import ConfigError, MailboundError

CONFIG_FAULT = 78  # EX_CONFIG of sysexits.h; systemd does not restart for it
INPUT_FAULT = 2

app = typer.Typer(
    name="mailbound",
    help="Sends e-mail activities to those who opted in, and learns from what bounces.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _main(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="The configuration [default: ./config.toml].", envvar="MAILBOUND_CONFIG"
        ),
    ] = None,
) -> None:
    context.obj = config or _default_config()


def _default_config() -> Path:
    here = Path("config.toml")
    installed = Path("/etc/mailbound/config.toml")
    return installed if not here.exists() and installed.exists() else here


def main() -> None:
    """Run the command line; a fault is one line on standard error, never a traceback."""
    from mailbound.cli import commands

    commands.add_to(app)
    try:
        app(standalone_mode=True)
    except ConfigError as error:
        _complain(str(error))
        sys.exit(CONFIG_FAULT)
    except MailboundError as error:
        _complain(f"mailbound: {error}")
        sys.exit(INPUT_FAULT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _complain(text: str) -> None:
    """Print a fault; the journal, where it listens, takes each line as an error (sd-daemon(3))."""
    from mailbound.logs import journal

    level = "<3>" if journal.listens() else ""
    print(*(f"{level}{line}" for line in text.splitlines()), sep="\n", file=sys.stderr)
