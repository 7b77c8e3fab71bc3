"""A daemon in a box: a folder with a configuration, the real program, and a look into its database."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from mailbound.database import activities, nodes, recovery, schema, segments, tables
from mailbound.database.activities import Plan
from mailbound.database.engine import Database
from world import NOW, World

_PATIENCE_SECONDS = 60.0

SETTINGS = """
[database]
url = "{url}"
[sending]
retry_first = "{retry_first}"
retry_longest = "{retry_first}"
in_doubt = "{in_doubt}"
drain = "5s"
{sending}
[inbound]
poll = "{poll}"
{more}
[stores.main]
name = "Example News"
list_id = "news.sender.test"
[stores.main.outbound]
address = "hello@sender.test"
host = "localhost"
ehlo_name = "client.sender.test"
connections = {connections}
{outbound}
[stores.main.inbound]
address = "{bounces}"
protocol = "{protocol}"
host = "localhost"
username = "{bounces}"
password_credential = "mailbox-password"
{inbound}
"""


DAEMON = "daemon"
"""How PostgreSQL knows the connections of the program."""


class Box:
    """Where a daemon lives. A context manager: whatever still runs at its end is killed."""

    def __init__(self, folder: Path, *, url: str = "", **settings: Any) -> None:
        """Write the configuration and a template; see SETTINGS for what can be said."""
        self.folder = folder
        defaults = {
            "url": url or f"sqlite:///{folder}/mailbound.db",
            "retry_first": "1s",
            "in_doubt": "resend",
            "more": "",
            "sending": "",
            "connections": 4,
            "outbound": "",
            "inbound": "",
            "bounces": "bounces@sender.test",
            "protocol": "pop3",
            "poll": "1s",
        }
        self.settings = {**defaults, **settings}
        self.url = str(self.settings["url"])
        (folder / "config.toml").write_text(SETTINGS.format(**self.settings))
        template = folder / "templates" / "spring"
        template.mkdir(parents=True, exist_ok=True)
        (template / "subject.txt").write_text("Spring for {{ name }}\n")
        (template / "text.txt").write_text("Hello {{ name }}, to leave: {{ unsubscribe_url }}\n")
        self.log = folder / "daemon.log"
        self.environment = {"PGAPPNAME": DAEMON}  # what the program finds there besides the usual
        self.program = [sys.executable, "-m", "mailbound.cli"]
        self.process: subprocess.Popen[bytes] | None = None
        self._started_at = 0  # in the log
        self._database: Database | None = None

    def __enter__(self) -> Self:
        """Nothing runs yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what still runs."""
        if self.process is not None:
            self.kill()
        if self._database is not None:
            self._database.close()

    # --- the program ---------------------------------------------------------------------------------------

    def cli(self, *words: str, status: int = 0) -> str:
        """Run a command and return what it prints. Fails unless it ends with `status`."""
        done = subprocess.run(
            [*self.program, "--config", str(self.folder / "config.toml"), *words],
            capture_output=True,
            text=True,
            env=self._environment(),
            cwd=self.folder,
            check=False,
        )
        assert done.returncode == status, f"{words} ended with {done.returncode}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout + (done.stderr if status else "")

    def json(self, *words: str) -> Any:
        """Run a command with --json and return what it says."""
        return json.loads(self.cli(*words, "--json"))

    def start(self, *, prefix: Iterable[str] = ()) -> None:
        """Start the daemon, and return when it is up; `prefix` goes before its command line."""
        self.launch(prefix=prefix)

        def up() -> bool:
            return b"service.started" in self.log.read_bytes()[self._started_at :]

        self.wait(up, "the daemon to start")

    def launch(self, *, prefix: Iterable[str] = ()) -> None:
        """Start the daemon, whatever comes of it."""
        self._started_at = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, *self.program, "--config", str(self.folder / "config.toml"), "run"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                cwd=self.folder,
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the daemon."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """Stop the daemon in good order and return its exit status."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        """Wait until the daemon has ended, by itself or by what struck it, and return its exit status."""
        assert self.process is not None
        try:
            status = self.process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"waited for the daemon to end:\n{self.log.read_text()[-5000:]}") from None
        self.process = None
        return status

    def strike(self) -> None:
        """Kill the daemon from any thread, and return once it is dead; `ended` says so to the test."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # `ended` was quicker
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)

    def kill(self) -> None:
        """Kill the daemon, and its children with it, as a power cut would."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):  # it has ended, and its status was looked at
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def wait(self, condition: Callable[[], bool], what: str, *, seconds: float = _PATIENCE_SECONDS) -> None:
        """Return once `condition` holds. Fails with the log if it does not come to that, or the daemon ends."""
        until = time.monotonic() + seconds
        while not condition():
            ended = self.process is not None and self.process.poll() is not None
            if ended or time.monotonic() > until:
                raise AssertionError(f"waited for {what}:\n{self.log.read_text()[-5000:]}")
            time.sleep(0.05)

    def events(self) -> list[dict[str, Any]]:
        """Return the daemon's log, a line each."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    # --- its database --------------------------------------------------------------------------------------

    @property
    def database(self) -> Database:
        """Return the daemon's database."""
        if self._database is None:
            self._database = Database(self.url)
        return self._database

    def rows(self, query: sa.Select[Any]) -> list[Any]:
        """Return what a query finds."""
        with self.database.look() as connection:
            return list(connection.execute(query))

    def states(self, activity: str) -> dict[str, str]:
        """Return the state of each delivery of an activity by external id; a skipped one with its reason."""
        rows = self.rows(
            sa.select(tables.recipient.c.external_id, tables.delivery.c.state, tables.delivery.c.reason)
            .join(tables.delivery, tables.delivery.c.recipient_id == tables.recipient.c.id)
            .join(tables.run, tables.run.c.id == tables.delivery.c.run_id)
            .join(tables.activity, tables.activity.c.id == tables.run.c.activity_id)
            .where(tables.activity.c.name == activity)
        )
        return {name: f"skipped {reason}" if state == "skipped" else state for name, state, reason in rows}

    def counts(self, activity: str) -> Counter[str]:
        """Return how many deliveries of an activity are in which state."""
        return Counter(self.states(activity).values())

    def run_state(self, activity: str) -> str:
        """Return the state of an activity's latest run, "" if there is none."""
        query = (
            sa.select(tables.run.c.state)
            .join(tables.activity, tables.activity.c.id == tables.run.c.activity_id)
            .where(tables.activity.c.name == activity)
            .order_by(tables.run.c.id.desc())
            .limit(1)
        )
        return next((row.state for row in self.rows(query)), "")

    def bury(self) -> None:
        """See the last transactions of a dead daemon to their end, and let the time pass that others give it.

        With SQLite there are no others.
        """
        if self.database.is_sqlite:
            return
        living = sa.select(sa.func.count()).select_from(sa.text("pg_stat_activity"))
        while self.rows(living.where(sa.text(f"application_name = '{DAEMON}'")))[0][0]:
            time.sleep(0.001)
        long_ago = datetime.now(UTC) - 2 * (nodes.LEASE + nodes.FINAL_DOT)
        with self.database.begin() as connection:
            connection.execute(tables.node.update().values(seen_at=long_ago, lost_at=long_ago))

    def take_over(self) -> None:
        """Take over what a buried daemon held, as another would who was there all the time."""
        if not self.database.is_sqlite:
            with self.database.begin() as connection:
                gone = nodes.lost(connection, answered=True)
                recovery.take_over(connection, gone, now=datetime.now(UTC))

    # --- in one line ---------------------------------------------------------------------------------------

    def people(self, addresses: Mapping[str, str], *, name: str = "people.csv") -> None:
        """Import recipients, opted in for the store, by external id and address."""
        lines = [f"{who},{address},{who},yes" for who, address in addresses.items()]
        (self.folder / name).write_text("external_id,address,name,opt_in\n" + "\n".join(lines) + "\n")
        self.cli("recipient", "import", name, "--store", "main")

    def plan(self, activity: str, *more: str) -> None:
        """Create an activity for everybody, due now."""
        if not self.rows(sa.select(tables.segment.c.id)):
            self.cli("segment", "create", "all", "--where", "external_id <> ''")
        self.cli(
            "activity", "create", activity, "--segment", "all", "--template", "spring", "--at", "now", *more
        )

    def populate(self, addresses: Mapping[str, str]) -> None:
        """Put recipients into a new database, opted in, and a segment of all; quicker than by commands."""
        schema.upgrade(self.database)
        with self.database.begin() as connection:
            here = World(connection)
            for name, address in addresses.items():
                here.person(name, address=address)
            connection.execute(tables.node.delete())  # nobody has been at work here yet
            segments.create(connection, "all", "external_id <> ''", now=NOW)

    def schedule(self, activity: str, **plan: Any) -> None:
        """Create an activity for everybody, due now unless `plan` says otherwise; quicker than by a command."""
        now = datetime.now(UTC)
        defaults = {
            "store": "main",
            "segment": "all",
            "template": "spring",
            "time_zone": "UTC",
            "grace": timedelta(hours=1),
            "expires_after": timedelta(days=4),
            "in_doubt": str(self.settings["in_doubt"]),
            "starts_at": now,
        }
        with self.database.begin() as connection:
            activities.create(connection, Plan(name=activity, **{**defaults, **plan}), now=now)

    def _environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MAILBOUND")}
        return {**clean, "RELAY_PASSWORD": "secret", "MAILBOX_PASSWORD": "secret", **self.environment}
