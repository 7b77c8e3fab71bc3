"""`mailbound simulate`: rehearse an activity before real people get it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mailbound.cli import terminal
from mailbound.errors import InputError

if TYPE_CHECKING:
    from mailbound import simulator


def simulate(
    *,
    host: Annotated[str, typer.Option(metavar="HOST", help="Where to listen.")] = "127.0.0.1",
    smtp_port: Annotated[
        int, typer.Option(metavar="PORT", help="The relay's port; 0: any free one.", min=0, max=65535)
    ] = 2525,
    pop3_port: Annotated[
        int, typer.Option(metavar="PORT", help="The mailbox's port; 0: any free one.", min=0, max=65535)
    ] = 2110,
    bounce_rate: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Share of ordinary addresses that bounce, 0 to 1.", min=0, max=1),
    ] = 0.0,
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Which addresses those are.")] = 0,
    form: Annotated[
        str | None,
        typer.Option(metavar="MTA", help="Whose reports to write, such as postfix [default: mixed]."),
    ] = None,
    delay: Annotated[float, typer.Option(metavar="SECONDS", help="From acceptance to report.", min=0)] = 0.2,
    latency: Annotated[float, typer.Option(metavar="SECONDS", help="Before every reply.", min=0)] = 0.0,
    fail_final: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Share of final dots that are never answered, 0 to 1.", min=0, max=1
        ),
    ] = 0.0,
    certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A PEM file; then TLS is offered.")
    ] = None,
    catalogue: Annotated[
        bool, typer.Option("--catalogue", help="List which addresses do what, and end.")
    ] = False,
) -> None:
    """Run a relay and a POP3 mailbox whose recipients bounce on request.

    What an address does stands in its local part: full@…, disabled@…, bounce+5.1.1@…, greylist@…, complaint@….
    The sample config.toml is made for it. Any user and password will do.
    """
    from mailbound import simulator

    if certificate is not None:
        _look_at(certificate)
    if catalogue:
        terminal.table(
            ["address", "what its mail does"],
            [(f"{name}@", behaviour.about) for name, behaviour in simulator.CATALOGUE.items()],
        )
        return
    try:
        simulated = simulator.Simulator(
            host=host,
            smtp_port=smtp_port,
            pop3_port=pop3_port,
            bounce_rate=bounce_rate,
            seed=seed,
            form=form,
            delay_seconds=delay,
            latency_seconds=latency,
            fail_final=fail_final,
            certificate=certificate,
        )
        asyncio.run(_serve(simulated))
    except OSError as error:
        raise InputError(f"simulate: {_why(error, f'{host}, ports {smtp_port} and {pop3_port}')}") from None
    except ValueError as error:
        raise InputError(f"simulate: {error}") from None


def _look_at(certificate: Path) -> None:
    """Raise InputError unless the file holds a certificate and its key."""
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate)
    except ssl.SSLError as error:
        raise InputError(f"--certificate: {certificate}: it holds no certificate with its key") from error
    except OSError as error:
        raise InputError(f"--certificate: {certificate}: {error.strerror}") from None


def _why(error: OSError, place: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{place}: another program listens there already; choose other ports"
    return f"{error.filename or place}: {error.strerror}"


async def _serve(simulated: simulator.Simulator) -> None:
    from mailbound import simulator

    def started(running: simulator.Simulator) -> None:
        terminal.say(
            f"relay on {running.host}:{running.smtp_port}, POP3 on {running.host}:{running.pop3_port}"
        )

    serving = asyncio.create_task(simulator.serve(simulated, started))
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    terminal.say(
        f"accepted {simulated.accepted}, refused {simulated.refused}, wrote {simulated.reports} reports"
    )
