"""`mailbound doctor`: what is wrong, and what would be if mail were sent now."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import typer

from mailbound.cli import bars, terminal
from mailbound.cli.bars import Styled
from mailbound.errors import DatabaseError, InputError, MailboundError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from mailbound.config import Config, Store
    from mailbound.database.engine import Database

_CROWDED = 0.8
_FULL_OCTETS = 16 * 2**20
_TIGHT_OCTETS = 512 * 2**20
_LATELY = timedelta(days=30)
_TELLING = 10  # reports, before one that no carrier brought back says anything
_STYLES = {"good": "green", "warning": "yellow", "fault": "bold red"}


_State = Literal["good", "warning", "fault"]


class _Finding(NamedTuple):
    about: str
    state: _State
    text: str


def doctor(context: typer.Context, *, json: terminal.Json = False) -> None:
    """Check configuration, database, templates, relays and mailboxes.

    It sends nothing and takes no mail away. The exit status is 2 if something is wrong.
    """
    from mailbound import config

    settings = config.load(context.obj)
    findings = [_Finding("config", "warning", text) for text in settings.warnings]
    findings += [] if findings else [_Finding("config", "good", f"{context.obj} has no faults")]
    try:
        with terminal.open_database(context) as database, database.look() as connection:
            findings += _stored(database, connection, settings)
    except DatabaseError as error:
        findings.append(_Finding("database", "fault", str(error).removeprefix("database: ")))
    findings += asyncio.run(_connections(settings))
    if json:
        terminal.print_json([each._asdict() for each in findings])
    else:
        rows = [(each.about, Styled(each.state, _STYLES[each.state]), each.text) for each in findings]
        bars.table(["about", "state", "why"], rows)
    faults = sum(each.state == "fault" for each in findings)
    if faults:
        raise InputError(f"{terminal.counted(faults, 'fault')}; see above")


def _stored(database: Database, connection: sa.Connection, settings: Config) -> Iterator[_Finding]:
    """Give what there is to say of the database and of all that lies in it."""
    if database.path is not None:
        yield _file(connection, database.path)
    yield _daemon(connection)
    yield from _sums(connection)
    yield from _runs(connection)
    yield from _held(connection)
    yield from _in_doubt(connection)
    yield from _templates(connection, settings.templates.folder)
    yield from _mail(connection, settings)
    yield from _quarantine(connection, settings)
    yield from _evidence(connection, settings)


def _file(connection: sa.Connection, path: Path) -> _Finding:
    import sqlalchemy as sa

    verdict = str(connection.execute(sa.text("PRAGMA quick_check")).scalar_one())
    room = shutil.disk_usage(path.parent).free
    text = f"SQLite says {verdict}; its disk has {room / 2**20:,.0f} MiB left"
    if verdict != "ok" or room < _FULL_OCTETS:
        return _Finding("database", "fault", text)
    return _Finding("database", "warning" if room < _TIGHT_OCTETS else "good", text)


def _daemon(connection: sa.Connection) -> _Finding:
    """Give whether anybody is at work."""
    from mailbound.database import nodes

    live = nodes.live(connection)
    if not live:
        seen = nodes.last_seen(connection)
        last = f"the last was heard of at {seen:%Y-%m-%d %H:%M:%S} UTC" if seen else "none ever was"
        return _Finding("daemon", "warning", f"none is at work; {last}")
    quiet = [row for row in live if row.asked_at - row.seen_at > nodes.QUIET]
    told = [f"{row.name}, heard of {(row.asked_at - row.seen_at).total_seconds():.0f} s ago" for row in live]
    return _Finding("daemon", "warning" if quiet else "good", "; ".join(told))


def _sums(connection: sa.Connection) -> Iterator[_Finding]:
    from mailbound.database import tally

    wrong = tally.differences(connection)
    for run_id, outcome, tallied, counted in wrong:
        yield _Finding("tally", "fault", f"run {run_id}: {outcome} is tallied {tallied}, counted {counted}")
    if not wrong:
        yield _Finding("tally", "good", "every audience is the sum of its states")


def _runs(connection: sa.Connection) -> Iterator[_Finding]:
    """Give the runs that wait for an operator."""
    from mailbound.database import runs
    from mailbound.lifecycle import RunState

    for run in runs.in_state(connection, RunState.HALTED, RunState.MISSED, RunState.FAILED):
        yield _Finding(
            f"run {run.id}",
            "fault" if run.state is RunState.HALTED else "warning",
            f"{run.activity} is {run.state}: {run.note}",
        )


def _held(connection: sa.Connection) -> Iterator[_Finding]:
    """Give the bounces that wait for an operator."""
    from mailbound.database import releasing

    for group in releasing.groups(connection):
        about = f"hold {group.hold}" if group.hold is not None else f"run {group.run}"
        held = f"{terminal.counted(group.bounces, 'bounce')} held"
        why = f"{group.why}: {held}" if group.hold is not None else f"{held} since it halted"
        state: _State = "fault" if group.hold is not None else "warning"
        yield _Finding(about, state, f"{why}; see `mailbound bounce held`")


def _in_doubt(connection: sa.Connection) -> Iterator[_Finding]:
    """Give the activities that have deliveries of which nobody knows whether they were sent."""
    from mailbound.database import doubtful

    for name, count in doubtful.counts(connection):
        counted = terminal.counted(int(count), "delivery", "deliveries")
        text = f"{counted} in doubt; see `mailbound activity in-doubt {name}`"
        yield _Finding(f"activity {name}", "warning", text)


def _templates(connection: sa.Connection, folder: Path) -> Iterator[_Finding]:
    """Give what is wrong with the templates of activities to come."""
    from mailbound.database import activities
    from mailbound.template import Template

    wanted = {each.template for each in activities.everything(connection) if each.ended_at is None}
    faults = 0
    for name in sorted(wanted):
        try:
            Template.load(folder / name)
        except InputError as error:
            faults += 1
            yield _Finding("templates", "fault", str(error))
    if not faults:
        yield _Finding("templates", "good", f"{terminal.counted(len(wanted), 'template')} in use can be read")


def _mail(connection: sa.Connection, settings: Config) -> Iterator[_Finding]:
    """Give the mail that only a person can make something of, and whether it leaves room for more."""
    from mailbound.database import inbound_mail
    from mailbound.database.reports import letters
    from mailbound.database.reports.sent import Scope

    puzzling = Counter(row.state for row in inbound_mail.puzzling(connection))
    wishes = letters.of(connection, Scope())
    for count, what, where in (
        (puzzling[inbound_mail.POISON], "could not be read", "list --mail"),
        (puzzling[inbound_mail.READ], "not understood", "list --kind unrecognised"),
        (
            wishes.wishes if wishes else 0,
            "asking to unsubscribe without a token of ours",
            "quarantine --wishes",
        ),
    ):
        if count:
            text = f"{terminal.counted(count, 'mail')} {what}; see `mailbound bounce {where}`"
            yield _Finding("inbound", "warning", text)
    share = inbound_mail.pinned_octets(connection) / settings.inbound.budget
    if share > _CROWDED:
        state: _State = "fault" if share >= 1 else "warning"
        text = f"what is unread, poison, quarantined or held takes {share:.0%} of the budget for raw mail"
        yield _Finding("inbound", state, f"{text}{'; fetching has stopped' if share >= 1 else ''}")


def _quarantine(connection: sa.Connection, settings: Config) -> Iterator[_Finding]:
    """Give how full the quarantine is, if anything is in it."""
    from mailbound.database import quarantine

    room = quarantine.room(connection)
    if not room.reports:
        return
    share = room.octets / settings.inbound.quarantine_budget
    text = f"{terminal.counted(room.reports, 'report')}, {share:.0%} of its budget; see `mailbound bounce quarantine`"
    yield _Finding("quarantine", "warning" if share > _CROWDED else "good", text)


def _evidence(connection: sa.Connection, settings: Config) -> Iterator[_Finding]:
    """Give which carriers of our tokens survive the way there and back, of each store."""
    from mailbound.correlate import Carrier
    from mailbound.database import evidence, stores

    since = datetime.now(UTC) - _LATELY
    for name, store in settings.stores.items():
        found = evidence.survived(connection, stores.number(connection, name), since=since)
        carriers = [Carrier.ENVID, Carrier.MESSAGE_ID]
        if store.inbound.subaddressing:
            carriers = [Carrier.RETURN_PATH, *carriers]
        if not found.reports:
            yield _Finding(f"{name} evidence", "good", f"no report yet; tokens travel in {_listed(carriers)}")
            continue
        counts = [f"{carrier} in {found.by_carrier[carrier]:,}" for carrier in carriers]
        text = f"of {terminal.counted(found.reports, 'signed report')} in {_LATELY.days} days: {', '.join(counts)}"
        lost = found.reports >= _TELLING and not found.by_carrier[carriers[0]] and store.inbound.subaddressing
        if lost:
            text += f"; does mail to {store.inbound.address.replace('@', '+TOKEN@')} arrive?"
        yield _Finding(f"{name} evidence", "warning" if lost else "good", text)


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


async def _connections(settings: Config) -> list[_Finding]:
    findings: list[_Finding] = []
    for name, store in settings.stores.items():
        with _judged(findings, f"{name} relay", store.outbound.host, store.outbound.port) as said:
            said.extend(await _greet(store))
        with _judged(findings, f"{name} mailbox", store.inbound.host, store.inbound.port) as said:
            said.append(await _count(store, settings))
    return findings


@contextmanager
def _judged(findings: list[_Finding], about: str, host: str, port: int) -> Iterator[list[str]]:
    """Keep what comes of the block: what it put into the list that it is given, else that it went well."""
    said: list[str] = []
    try:
        yield said
    except MailboundError as error:
        findings.append(_Finding(about, "fault", f"{host}:{port}: {error}"))
    else:
        findings.append(
            _Finding(about, "good", " ".join([f"{host}:{port}", *(said or ["takes mail from us"])]))
        )


async def _greet(store: Store) -> list[str]:
    """Return what there is to say of a relay that takes mail from us."""
    from mailbound import relay, sessions

    session = await relay.open(sessions.account(store))
    await session.quit()
    return [] if session.extensions.dsn else ["takes mail from us, but no DSN: no ENVID brings a token back"]


async def _count(store: Store, settings: Config) -> str:
    from mailbound import sessions

    mailbox = await sessions.open_mailbox(store, settings)
    count = len(await mailbox.list())
    await mailbox.close(commit=False)
    return "; ".join([f"holds {terminal.counted(count, 'mail')}", *mailbox.doubts])
