"""`mailbound simulate`: rehearse an activity before real people get it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mailbound.cli import terminal
from mailbound.errors import InputError

if TYPE_CHECKING:
    from mailbound import simulator


def simulate(
    *,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    smtp_port: Annotated[int, typer.Option(help="The relay's port; 0: any free one.")] = 2525,
    pop3_port: Annotated[int, typer.Option(help="The mailbox's port; 0: any free one.")] = 2110,
    bounce_rate: Annotated[
        float, typer.Option(help="Share of ordinary addresses that bounce, 0 to 1.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Which addresses those are.")] = 0,
    form: Annotated[
        str | None, typer.Option(help="Whose reports to write, such as postfix [default: mixed].")
    ] = None,
    delay: Annotated[float, typer.Option(help="Seconds from acceptance to report.")] = 0.2,
    latency: Annotated[float, typer.Option(help="Seconds before every reply.")] = 0.0,
    fail_final: Annotated[
        float, typer.Option(help="Share of final dots that are never answered, 0 to 1.")
    ] = 0.0,
    certificate: Annotated[Path | None, typer.Option(help="A PEM file; then TLS is offered.")] = None,
    catalogue: Annotated[
        bool, typer.Option("--catalogue", help="List which addresses do what, and end.")
    ] = False,
) -> None:
    """Run a relay and a POP3 mailbox whose recipients bounce on request.

    What an address does stands in its local part: full@…, disabled@…, bounce+5.1.1@…, greylist@…, complaint@….
    The sample config.toml is made for it. Any user and password will do.
    """
    from mailbound import simulator

    if catalogue:
        terminal.table(
            ["address", "what it does"], [(name, text) for name, text in simulator.CATALOGUE.items()]
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
    except (OSError, ValueError) as error:
        raise InputError(f"simulate: {error}") from None


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
