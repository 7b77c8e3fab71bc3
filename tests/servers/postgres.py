"""A private PostgreSQL that forgets: nothing is synced, since nothing here outlives the test run."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psycopg

from servers import need, need_root, processes

_USER = "postgres"  # PostgreSQL refuses to run as root
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "unix_socket_directories": "",
}


class Postgres:
    """The newest PostgreSQL of this machine; a context manager that runs it while it is open."""

    def __init__(self, **settings: str) -> None:
        """Number the databases from 1. `settings` of the server go before those that make it forget."""
        self._settings = {**_SETTINGS, **settings}
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        """Make a cluster, start it, and return when it answers. Raises NotStartedError."""
        need_root()
        need("initdb")
        self.home = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
        shutil.chown(self.home, _USER, _USER)
        self.port = processes.free_ports(["postgres"])["postgres"]
        try:
            self._initialise()
            self.start()
        except BaseException:
            shutil.rmtree(self.home)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it at once and remove all it wrote."""
        processes.stop(self._process, signal.SIGQUIT)
        shutil.rmtree(self.home)

    def start(self) -> None:
        """Start it, and return when it answers. Raises NotStartedError."""
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        command = [need("postgres"), "-D", f"{self.home}/data", "-p", str(self.port), *settings]
        log = self.home / "log"
        self._process = processes.start(command, log=log, user=_USER)
        try:
            processes.await_ready(self._answers, self._process, log=log)
        except processes.NotStartedError:
            processes.stop(self._process, signal.SIGQUIT)
            raise

    def crash(self) -> None:
        """Let it die without a goodbye; `start` brings it back, with what it had written."""
        processes.stop(self._process, signal.SIGQUIT)

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """Return the URL of a database that nobody used before; it is dropped in the end."""
        name = self.make()
        try:
            yield f"postgresql+psycopg://{_USER}@127.0.0.1:{self.port}/{name}"
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def make(self) -> str:
        """Return the name of a database that nobody used before."""
        name = f"test{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name}")
        return name

    def await_standby(self) -> None:
        """Acknowledge nothing from now on that no standby wrote down."""
        self._execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self._execute("SELECT pg_reload_conf()")

    def _initialise(self) -> None:
        options = ["--no-sync", "--no-instructions", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"]
        _run([need("initdb"), *options, f"--pgdata={self.home}/data"], self.home)

    def _answers(self) -> bool:
        # It listens before it lets anybody in.
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=_USER, dbname="postgres", autocommit=True
        )

    def _execute(self, statement: str) -> None:
        with self._connect() as connection:
            connection.execute(statement)


class Standby(Postgres):
    """Follows another server, and can take over from it."""

    def __init__(self, primary: Postgres) -> None:
        """Follow `primary`, which runs, once it is opened."""
        super().__init__(**primary._settings)
        self._primary = primary

    def promote(self) -> None:
        """Follow nobody any more, and return when it can be written."""
        self._execute("SELECT pg_promote()")

    def url(self, name: str) -> str:
        """Return the URL of a database, wherever it can be written: there or here."""
        hosts = "&".join(f"host=127.0.0.1:{each.port}" for each in (self._primary, self))
        return f"postgresql+psycopg://{_USER}@/{name}?{hosts}&target_session_attrs=read-write"

    def _initialise(self) -> None:
        source = ["--host=127.0.0.1", f"--port={self._primary.port}", f"--username={_USER}"]
        options = ["--checkpoint=fast", "--no-sync", "--write-recovery-conf", f"--pgdata={self.home}/data"]
        _run([need("pg_basebackup"), *source, *options], self.home)


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(
        command, check=True, capture_output=True, user=_USER, group=_USER, extra_groups=[], cwd=folder
    )
