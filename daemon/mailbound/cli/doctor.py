"""`mailbound doctor`: what is wrong, and what would be if mail were sent now."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import sqlalchemy as sa
import typer

from mailbound.cli import terminal
from mailbound.errors import InputError, MailboundError

if TYPE_CHECKING:
    from mailbound.config import Config


def doctor(context: typer.Context, *, json: terminal.Json = False) -> None:
    """Check the configuration, the database's sums, each relay and each mailbox; exit 2 if something is wrong."""
    from mailbound import config
    from mailbound.database import tally

    settings = config.load(context.obj)
    findings = [("config", "warning", text) for text in settings.warnings]
    with terminal.open_database(context) as database, database.look() as connection:
        if database.is_sqlite:
            verdict = connection.execute(sa.text("PRAGMA quick_check")).scalar_one()
            findings.append(("database", "good" if verdict == "ok" else "fault", f"SQLite says {verdict}"))
        wrong = tally.differences(connection)
        for run_id, outcome, tallied, counted in wrong:
            findings.append(
                ("tally", "fault", f"run {run_id}: {outcome} is tallied {tallied}, counted {counted}")
            )
        if not wrong:
            findings.append(("tally", "good", "every audience is the sum of its states"))
    findings += asyncio.run(_connections(settings))
    if json:
        terminal.print_json(
            [{"about": about, "state": state, "text": text} for about, state, text in findings]
        )
    else:
        terminal.table(["about", "state", ""], findings)
    if any(state == "fault" for _, state, _ in findings):
        raise InputError("something is wrong; see above")


async def _connections(settings: Config) -> list[tuple[str, str, str]]:
    from mailbound import relay, service

    findings = []
    for name, store in settings.stores.items():
        try:
            session = await relay.open(service.account(store))
            await session.quit()
            findings.append((f"{name} relay", "good", f"{store.outbound.host} takes mail from us"))
        except MailboundError as error:
            findings.append((f"{name} relay", "fault", f"{store.outbound.host}: {error}"))
        try:
            mailbox = await service.open_mailbox(store, settings)
            count = len(await mailbox.list())
            await mailbox.close(commit=False)
            findings.append((f"{name} mailbox", "good", f"{store.inbound.host} holds {count} mails"))
        except MailboundError as error:
            findings.append((f"{name} mailbox", "fault", f"{store.inbound.host}: {error}"))
    return findings
