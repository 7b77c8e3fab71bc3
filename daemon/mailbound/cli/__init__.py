"""The command `mailbound`: one file for each noun."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mailbound import __version__
from mailbound.cli.commands import Commands
from mailbound.errors import ConfigError, MailboundError

CONFIG_FAULT = 78  # EX_CONFIG of sysexits.h; systemd does not restart for it
INPUT_FAULT = 2

app = typer.Typer(
    name="mailbound",
    help="Sends e-mail activities to those who opted in, and learns from what bounces.",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"mailbound {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="The configuration [default: ./config.toml, else /etc/mailbound/config.toml].",
            envvar="MAILBOUND_CONFIG",
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    context.obj = config or _default_config()


def _default_config() -> Path:
    here = Path("config.toml")
    installed = Path("/etc/mailbound/config.toml")
    return installed if not here.exists() and installed.exists() else here


def main() -> None:
    """Run the command line; a fault is one line on standard error, never a traceback."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed before we came
            setattr(sys, name, Path(os.devnull).open("r+"))  # noqa: SIM115 - for as long as we live
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a terminal in Latin-1 shows no Japanese, but the rest
    try:
        try:
            app(standalone_mode=True)
        finally:
            sys.stdout.flush()
    except ConfigError as error:
        _end(str(error), CONFIG_FAULT)
    except MailboundError as error:
        _end(f"mailbound: {error}", INPUT_FAULT)
    except OSError as error:
        if error.filename is not None:
            _end(f"mailbound: {error.filename}: {error.strerror}", INPUT_FAULT)
        # It was the output, so nothing more can be said there, not even at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        _end(f"mailbound: {error.strerror or error}", INPUT_FAULT)


def _end(text: str, status: int) -> None:
    print(text, file=sys.stderr)
    sys.exit(status)
