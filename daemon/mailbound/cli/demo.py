"""`mailbound demo`: the whole job in under a minute, with the real commands, on this machine alone."""

from __future__ import annotations

import csv
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mailbound.cli import terminal
from mailbound.errors import InputError

if TYPE_CHECKING:
    from mailbound.database.engine import Database

_MARK = ".mailbound-demo"
_RECIPIENTS = 2_000
_OPTED_OUT = 20
_FAULTY = (
    "R9001,no address at all,,Faulty,DE,10,yes",
    "R9002,two@@signs.example,Faulty,DE,10,yes",
    ",nobody@example.com,Faulty,DE,10,yes",
    "R9004,spaces in@example.com,Faulty,DE,10,yes",
    f"R9005,{'long' * 17}@example.com,Faulty,DE,10,yes",
)
_TROUBLED = (
    *("full-1", "full-2", "full-3", "disabled-1", "disabled-2", "moved-1", "greylist-1", "greylist-2"),
    *("delay-1", "complaint-1", "complaint-2", "autoreply-1", "autoreply-2", "unsubscribe-1", "blocked-1"),
    *("refuse+550-5.1.1", "refuse+552-5.2.2", "bounce+5.1.2", "bounce+5.4.4"),
)
_DOMAINS = ("example.com", "example.net", "example.org", "mail.example.com", "post.example.net")
_FIRST_NAMES = (
    "Ada",
    "Ben",
    "Chloé",
    "Dmitri",
    "Eva",
    "Finn",
    "Grażyna",
    "Hugo",
    "Inês",
    "Jörg",
    "Kaya",
    "Lucía",
)
_DEAD = "bounce+5.1.1"


def demo(
    *,
    folder: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the demo keeps its files.")] = Path(
        "demo"
    ),
) -> None:
    """Play the whole job in half a minute, on this machine alone.

    Two activities go to 2,000 simulated people; then it shows what bounced, and what was learnt from it.
    """
    begun = time.monotonic()
    _prepare(folder)
    with _running(folder, "simulate", *_ports(folder), "--bounce-rate", "0.04"), _running(folder, "run"):
        _play(folder)
    terminal.say("", f"That took {time.monotonic() - begun:.0f} seconds. To look further:")
    commands = {
        "activity list": "what was planned",
        "bounce list": "every bounce, the latest first",
        "bounce list --mail": "every mail that came back",
        "config explain": "what the settings do, in words",
        f"logs {shlex.quote(f'{folder}/daemon.log')} --event 'bounce.*'": "the log, filtered",
    }
    terminal.say(f"  export MAILBOUND_CONFIG={shlex.quote(f'{folder}/config.toml')}")
    width = max(map(len, commands))
    terminal.say(*(f"  mailbound {command:<{width}}  # {what}" for command, what in commands.items()))


def _play(folder: Path) -> None:
    dead = f"{_DEAD}@{_DOMAINS[0]}"
    _chapter("A list of people, some lines of which are faulty")
    _mailbound(folder, "recipient", "import", str(folder / "recipients.csv"), "--store", "main")
    _chapter("A segment of it, and an activity that is due in two seconds")
    _mailbound(
        folder,
        "segment",
        "create",
        "europe",
        "--where",
        "country in ('DE', 'FR', 'PT') and lifetime_value > 0",
    )
    _create(folder, "spring")
    _mailbound(folder, "activity", "show", "spring", "--follow", quiet=True)
    _wait_for_bounces(folder)
    _chapter("What became of it")
    _mailbound(folder, "report", "activity", "spring")
    _chapter("A second activity leaves out the dead, the suspended, and those who said no")
    _create(folder, "summer")
    _mailbound(folder, "activity", "show", "summer", "--follow", quiet=True)
    _wait_for_bounces(folder)
    _mailbound(folder, "report", "activity", "summer")
    _chapter("Bounces by reason and by domain")
    _mailbound(folder, "report", "bounces", "--by", "reason")
    _mailbound(folder, "report", "bounces", "--by", "domain")
    _chapter("The story of one recipient")
    _mailbound(folder, "report", "recipient", dead)
    _prove(folder)


def _create(folder: Path, name: str) -> None:
    _mailbound(
        folder, "activity", "create", name, "--segment", "europe", "--template", "spring", "--at", "in 2s"
    )


def _prove(folder: Path) -> None:
    _chapter("Was an undeliverable address mailed again?")
    with _database(folder) as database:
        again, dead = _mailed_after_death(database)
    if again:
        raise InputError(f"{again} messages went to addresses that were known to be dead")
    terminal.say(f"No: {dead} addresses are known to be dead, and not one message went there since.")


def _mailed_after_death(database: Database) -> tuple[int, int]:
    import sqlalchemy as sa

    from mailbound.database.tables import delivery, recipient_status
    from mailbound.model import RecipientStatus

    dead = recipient_status.c.status == RecipientStatus.UNDELIVERABLE
    joined = delivery.join(recipient_status, recipient_status.c.address_id == delivery.c.address_id)
    with database.look() as connection:
        again = (
            sa.select(sa.func.count())
            .select_from(joined)
            .where(dead, delivery.c.marked_at > recipient_status.c.since)
        )
        return (
            connection.execute(again).scalar_one(),
            connection.execute(
                sa.select(sa.func.count()).select_from(recipient_status).where(dead)
            ).scalar_one(),
        )


def _wait_for_bounces(folder: Path) -> None:
    """Wait until nothing came back for two seconds, and all that came back was read."""
    import sqlalchemy as sa

    from mailbound.database.tables import inbound_mail

    with _database(folder) as database:
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < 2.5:
            with database.look() as connection:
                new = sa.func.count(sa.case((inbound_mail.c.state == "new", 1)))
                count, unread = connection.execute(
                    sa.select(sa.func.count(), new).select_from(inbound_mail)
                ).one()
            if count != seen or unread:
                seen, since = count, time.monotonic()
            time.sleep(0.1)
    terminal.say(f"{seen} mails came back to the bounce mailbox so far.")


# --- the stage ----------------------------------------------------------------


def _prepare(folder: Path) -> None:
    """Make the folder anew, unless it is somebody else's."""
    is_strange = folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).exists()
    if is_strange or (folder.exists() and not folder.is_dir()):
        raise InputError(
            f"{folder} holds something else than an earlier demo; name another one with --folder"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / _MARK).touch()
    from mailbound import samples

    smtp_port, pop3_port = _free_ports(2)
    settings = samples.config()
    for pattern, value in (
        (r"^port = 2525", f"port = {smtp_port}"),
        (r"^port = 2110", f"port = {pop3_port}"),
        (r'^poll = "\w+"', 'poll = "1s"'),
        (r'^retry_first = "\w+"', 'retry_first = "2s"'),
    ):
        settings, found = re.subn(pattern, value, settings, count=1, flags=re.MULTILINE)
        if not found:
            raise InputError(f"the sample configuration has no {pattern}")
    (folder / "config.toml").write_text(settings)
    samples.write_template(folder / "templates" / "spring")
    _write_recipients(folder / "recipients.csv")


def _write_recipients(file: Path) -> None:
    rng = random.Random(6)  # the same people each time
    rows = []
    names = [*_TROUBLED, _DEAD]
    for number in range(_RECIPIENTS - len(_FAULTY)):
        first_name = rng.choice(_FIRST_NAMES)
        local = names[number] if number < len(names) else f"person{number}"
        domain = _DOMAINS[0] if number < len(names) else rng.choice(_DOMAINS)
        out = len(names) <= number < len(names) + _OPTED_OUT
        country, value = rng.choice(("DE", "DE", "FR", "PT")), rng.randint(1, 900)
        rows.append(
            (f"R{number:04}", f"{local}@{domain}", first_name, country, value, "no" if out else "yes")
        )
    with file.open("w", newline="") as stream:
        stream.write("external_id,address,name,country,lifetime_value,opt_in\n")
        writer = csv.writer(stream)
        for number, row in enumerate(rows):
            if number % 400 == 100:  # the faulty lines are spread over the file
                stream.write(_FAULTY[number // 400] + "\n")
            writer.writerow(row)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _ports(folder: Path) -> tuple[str, ...]:
    smtp_port, pop3_port = re.findall(r"^port = (\d+)", (folder / "config.toml").read_text(), re.MULTILINE)
    return "--smtp-port", smtp_port, "--pop3-port", pop3_port


@contextmanager
def _running(folder: Path, *words: str) -> Iterator[None]:
    """Run a command beside us, its output in a file, until the end of the block."""
    log = folder / ("daemon.log" if words[0] == "run" else f"{words[0]}.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(folder, *words), stdout=output, stderr=subprocess.STDOUT, env=_environment()
        )
    try:
        _wait_until_up(process, log)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


def _wait_until_up(process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        said = log.read_text(errors="replace")
        if "service.started" in said or "relay on" in said:
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise InputError(f"it did not start; {log} says: {log.read_text(errors='replace').strip()[-500:]}")


def _mailbound(folder: Path, *words: str, quiet: bool = False) -> None:
    """Run one of our commands as a person would, and show it."""
    if not quiet:
        shown = " ".join(f'"{word}"' if " " in word else word for word in words)
        terminal.say("", f"$ mailbound {shown}")
    sys.stdout.flush()
    output = subprocess.DEVNULL if quiet else None
    finished = subprocess.run(_command(folder, *words), stdout=output, env=_environment(), check=False)
    if finished.returncode:
        raise InputError(f"mailbound {' '.join(words)} ended with {finished.returncode}")


def _command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "mailbound.cli", "--config", str(folder / "config.toml"), *words]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


def _chapter(title: str) -> None:
    terminal.say("", f"── {title} " + "─" * max(3, 76 - len(title)))


@contextmanager
def _database(folder: Path) -> Iterator[Database]:
    from mailbound import config
    from mailbound.database.engine import Database

    database = Database(config.load(folder / "config.toml").database.connect_url())
    try:
        yield database
    finally:
        database.close()
