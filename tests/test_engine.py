"""The database's promises: durable, private, one writer, and patient."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import sqlalchemy as sa

from commit_cutter import CommitCutter
from mailbound.database import lock
from mailbound.database.engine import Database
from mailbound.database.prepared import Prepared
from mailbound.errors import DatabaseError, InputError
from servers.postgres import Postgres

_WORD = sa.table("word", sa.column("text", sa.String(20)))
_INSERTED = _WORD.insert().values(text=sa.bindparam("word")).returning(_WORD.c.text).cte("inserted")


def _table(connection: sa.Connection) -> None:
    connection.execute(sa.text("CREATE TABLE word (text VARCHAR(20) PRIMARY KEY)"))


def _say(connection: sa.Connection, word: str) -> str:
    connection.execute(sa.text("INSERT INTO word VALUES (:word)"), {"word": word})
    return word


def _words(connection: sa.Connection) -> list[str]:
    return list(connection.execute(sa.text("SELECT text FROM word ORDER BY text")).scalars())


def test_a_transaction_is_whole_or_nothing(database_url: str) -> None:
    database = Database(database_url)
    with database.begin() as connection:
        _table(connection)
        _say(connection, "first")

    def fail(connection: sa.Connection) -> None:
        _say(connection, "second")
        _say(connection, "first")

    with pytest.raises(DatabaseError):
        asyncio.run(database.run(fail))
    assert asyncio.run(database.run(_say, "third")) == "third"
    assert asyncio.run(database.read(_words)) == ["first", "third"]
    database.close()


def test_sqlite_survives_a_power_cut_and_shows_itself_to_nobody(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/m.db", checkpoints=True)
    with database.begin() as connection:
        _table(connection)
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "wal_autocheckpoint")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "wal_autocheckpoint": 1000}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("m.db*")} == {0o600}
    database.close()


def test_only_the_daemon_checkpoints(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/m.db")
    with database.begin() as connection:
        assert connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar() == 0
    database.close()


def test_a_locked_database_is_waited_for(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/m.db")
    with database.begin() as connection:
        _table(connection)
    other = sqlite3.connect(tmp_path / "m.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    begun = threading.Event()

    async def write() -> str:
        waiting = asyncio.create_task(database.run(_say, "late"))
        await asyncio.sleep(0)
        begun.set()
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done
        await asyncio.to_thread(other.execute, "ROLLBACK")
        return await waiting

    assert asyncio.run(write()) == "late"
    assert begun.is_set()
    other.close()
    database.close()


@pytest.mark.parametrize("times", [1, 3])
def test_a_reader_that_writes_on_what_is_no_longer_so_begins_anew_and_rests_before(
    tmp_path: Path, times: int
) -> None:
    database = Database(f"sqlite:///{tmp_path}/m.db")
    with database.begin() as connection:
        _table(connection)
    other = sqlite3.connect(tmp_path / "m.db", isolation_level=None, check_same_thread=False)
    faults: list[str] = []
    seen: list[list[str]] = []

    def answer(connection: sa.Connection) -> str:
        seen.append(_words(connection))
        if len(faults) < times:
            other.execute("INSERT INTO word VALUES (?)", (f"word {len(faults)}",))
        try:
            return _say(connection, "answer")
        except sa.exc.OperationalError as error:
            faults.append(getattr(error.orig, "sqlite_errorname", ""))
            raise

    begun = time.monotonic()
    assert asyncio.run(database.read(answer)) == "answer"
    assert faults == ["SQLITE_BUSY_SNAPSHOT"] * times
    assert seen == [[f"word {number}" for number in range(count)] for count in range(times + 1)]
    assert time.monotonic() - begun >= 0.05 * times, "it does not spin"
    other.close()
    database.close()


def test_a_writer_has_the_database_to_itself_from_its_first_look(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/m.db")
    with database.begin() as connection:
        _table(connection)
    other = sqlite3.connect(tmp_path / "m.db", isolation_level=None, check_same_thread=False, timeout=0)
    seen: list[list[str]] = []

    def answer(connection: sa.Connection) -> str:
        seen.append(_words(connection))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("INSERT INTO word VALUES ('meanwhile')")
        return _say(connection, "answer")

    assert asyncio.run(database.run(answer)) == "answer"
    assert seen == [[]], "so it never looks at what is no longer so"
    other.close()
    database.close()


def test_a_reader_sees_one_moment(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/m.db")
    with database.begin() as connection:
        _table(connection)
    with database.look() as reader:
        assert _words(reader) == []
        with database.begin() as writer:
            _say(writer, "new")
        assert _words(reader) == []
    with database.look() as reader:
        assert _words(reader) == ["new"]
    database.close()


@pytest.mark.parametrize("url", ["nonsense", "oracle-of-delphi://x/y"])
def test_a_url_of_no_use_is_one_clear_line(url: str) -> None:
    with pytest.raises(InputError, match=r"^database\.url: "):
        Database(url)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files for others")
def test_what_root_makes_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, 1, 1)
    database = Database(f"sqlite:///{folder}/m.db")
    with database.begin() as connection:
        _table(connection)
    assert {path.name for path in folder.iterdir()} == {"m.db", "m.db-wal", "m.db-shm"}
    assert {(path.stat().st_uid, path.stat().st_gid) for path in folder.iterdir()} == {(1, 1)}
    database.close()


def test_a_file_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/nowhere/m.db")
    with pytest.raises(DatabaseError, match=r"nowhere/m\.db: No such file or directory$"), database.look():
        pass
    with pytest.raises(DatabaseError, match=r"nowhere/m\.db: No such file or directory$"):
        asyncio.run(database.run(_words))
    database.close()


@pytest.mark.parametrize(
    ("mounts", "refused"),
    [
        pytest.param([("/", "ext4")], False, id="local"),
        pytest.param([("/", "nfs4")], True, id="all of it remote"),
        pytest.param([("/", "ext4"), ("HERE", "nfs")], True, id="its folder remote"),
        pytest.param([("/", "nfs4"), ("HERE", "xfs")], False, id="its folder local"),
        pytest.param([("HERE", "cifs"), ("HERE", "ext4")], False, id="covered by another"),
        pytest.param([("/", "ext4"), ("HERE/elsewhere", "nfs")], False, id="another folder remote"),
        pytest.param([], False, id="not known"),
    ],
)
def test_a_file_system_of_the_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: list[tuple[str, str]], *, refused: bool
) -> None:
    here = tmp_path / "a folder"
    here.mkdir()
    lines = [
        f"36 35 98:0 / {point.replace('HERE', str(here)).replace(' ', chr(92) + '040')} rw shared:1 - {kind} dev rw"
        for point, kind in mounts
    ]
    (tmp_path / "mountinfo").write_text("\n".join(lines))
    monkeypatch.setattr(lock, "_MOUNTS", tmp_path / "mountinfo")
    database = Database(f"sqlite:///{here}/m.db")
    expected = pytest.raises(DatabaseError, match="which SQLite cannot trust") if refused else nullcontext()
    with expected, lock.alone(database):
        pass
    database.close()


@pytest.mark.parametrize("committed", [True, False])
def test_a_transaction_is_not_run_again_once_it_was_committed(
    postgres: Postgres, postgres_url: str, *, committed: bool
) -> None:
    runs = []

    def count(connection: sa.Connection) -> None:
        runs.append(1)
        connection.execute(sa.text("UPDATE counter SET value = value + 1"))

    def value(connection: sa.Connection) -> int:
        return int(connection.execute(sa.text("SELECT value FROM counter")).scalar_one())

    database = Database(postgres_url)
    with database.begin() as connection:
        connection.execute(sa.text("CREATE TABLE counter AS SELECT 0 AS value"))
    with CommitCutter(postgres.port, committed=committed, every=2) as cutter:
        cutter.armed = True
        cut_off = Database(postgres_url.replace(f":{postgres.port}/", f":{cutter.port}/"))
        for _ in range(4):
            asyncio.run(cut_off.run(count))
        cut_off.close()
    assert asyncio.run(database.read(value)) == 4
    assert cutter.cuts >= 1
    assert (len(runs) == 4) is committed
    database.close()


_SAID = Prepared("said", lambda _: sa.select(_INSERTED.c.text))


@pytest.mark.parametrize("committed", [True, False])
def test_a_statement_alone_is_not_said_again_once_it_was_committed(
    postgres: Postgres, postgres_url: str, *, committed: bool
) -> None:
    said = []

    def say(connection: sa.Connection, word: str) -> str | None:
        said.append(word)
        return _SAID.row(connection, word=word)[0]

    def recall(connection: sa.Connection, word: str) -> str | None:
        return word if word in _words(connection) else None

    database = Database(postgres_url)
    with database.begin() as connection:
        _table(connection)
    words = ["eins", "zwei", "drei", "vier"]
    with CommitCutter(postgres.port, committed=committed, every=2) as cutter:
        cutter.armed = True
        cut_off = Database(postgres_url.replace(f":{postgres.port}/", f":{cutter.port}/"))
        assert [asyncio.run(cut_off.run_alone(say, recall, word)) for word in words] == words
        cut_off.close()
    assert asyncio.run(database.read(_words)) == sorted(words)
    assert cutter.cuts >= 1
    assert (said == words) is committed
    database.close()


def test_a_statement_that_the_server_forgot_is_prepared_again(postgres_url: str) -> None:
    database = Database(postgres_url)
    with database.begin() as connection:
        _table(connection)

    def say(connection: sa.Connection, word: str) -> str | None:
        return _SAID.row(connection, word=word)[0]

    def forget(connection: sa.Connection) -> None:
        connection.exec_driver_sql("DEALLOCATE ALL")

    for word in ("first", "second"):
        assert asyncio.run(database.run_alone(say, lambda *_: None, word)) == word
        asyncio.run(database.run(forget))
    assert asyncio.run(database.run(say, "third")) == "third"
    assert asyncio.run(database.read(_words)) == ["first", "second", "third"]
    database.close()
