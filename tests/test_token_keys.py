"""Signing keys: one signs, those before it still verify, and what a revoked one signed is forged."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mailbound import config, tokens
from mailbound.database import activities, erasing, runs, schema, tables, token_keys
from mailbound.database.engine import Database
from mailbound.errors import InputError
from mailbound.model import Letter
from mailbound.outbound.composer import Composer
from mailbound.template import Template
from mailbound.tokens import Purpose
from world import DAY, NOW, World, world

SAMPLE = Path(__file__).parents[1] / "config.toml"


def minted(key: tokens.Key) -> str:
    return tokens.for_delivery(key, Purpose.RETURN_PATH, 1, attempt=1, day=tokens.day_number(NOW))


def is_genuine(here: World, token: str) -> bool:
    return tokens.verify(token, token_keys.verifying(here.connection), now=NOW) is not None


def states(here: World) -> dict[int, str]:
    return {each.id: each.state for each in token_keys.everything(here.connection)}


def test_a_new_key_signs_and_the_one_before_it_still_verifies(database_url: str) -> None:
    with world(database_url) as here:
        old = token_keys.signing(here.connection, now=NOW)
        new = token_keys.rotate(here.connection, now=NOW + DAY)
        assert new.secret != old.secret
        assert token_keys.signing(here.connection, now=NOW + DAY) == new
        assert states(here) == {0: "verifies", 1: "signs"}
        assert is_genuine(here, minted(old))
        assert is_genuine(here, minted(new))


def test_what_a_revoked_key_signed_is_forged_and_its_runs_go_on_with_another(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        old = token_keys.signing(here.connection, now=NOW)
        run_id = here.sending()
        new = token_keys.revoke(here.connection, old.id, now=NOW)
        assert (states(here), new.id) == ({0: "revoked", 1: "signs"}, 1)
        assert not is_genuine(here, minted(old))
        assert is_genuine(here, minted(new))
        assert runs.find(here.connection, run_id).key_id == new.id


def test_revoking_an_old_key_leaves_the_one_that_signs(sqlite_url: str) -> None:
    with world(sqlite_url) as here:
        old = token_keys.signing(here.connection, now=NOW)
        new = token_keys.rotate(here.connection, now=NOW)
        assert token_keys.revoke(here.connection, old.id, now=NOW) == new
        assert states(here) == {0: "revoked", 1: "signs"}


@pytest.mark.parametrize(("key_id", "said"), [(7, "there is no key 7"), (0, "key 0 is revoked already")])
def test_only_a_key_that_verifies_can_be_revoked(sqlite_url: str, key_id: int, said: str) -> None:
    with world(sqlite_url) as here:
        token_keys.signing(here.connection, now=NOW)
        token_keys.revoke(here.connection, 0, now=NOW)
        with pytest.raises(InputError, match=said):
            token_keys.revoke(here.connection, key_id, now=NOW)


def test_an_id_is_used_again_only_after_its_key_was_revoked(sqlite_url: str) -> None:
    with world(sqlite_url) as here:
        keys = [token_keys.rotate(here.connection, now=NOW) for _ in range(31)]
        assert [key.id for key in keys] == list(range(1, 32))
        with pytest.raises(InputError, match="there are 32 keys already"), here.connection.begin_nested():
            token_keys.rotate(here.connection, now=NOW)
        token_keys.revoke(here.connection, 7, now=NOW)
        again = token_keys.rotate(here.connection, now=NOW)
        assert again.id == 7
        assert not is_genuine(here, minted(keys[6]))
        assert is_genuine(here, minted(again))
        assert token_keys.signing(here.connection, now=NOW) == again


def test_the_erased_are_known_again_after_their_key_was_revoked(sqlite_url: str) -> None:
    with world(sqlite_url) as here:
        anna = here.person("anna")
        erasing.erase(here.connection, anna, who="ada", now=NOW)
        before = erasing.key(here.connection)
        token_keys.revoke(here.connection, 0, now=NOW)
        assert erasing.key(here.connection) == before
        assert before is not None
        hashes = [erasing.hash_of_id(before, "anna")]
        assert erasing.erased(here.connection, hashes) == set(hashes)


def test_a_store_that_no_message_can_name_is_told_for_each_letter(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "spring").mkdir()
    (tmp_path / "spring" / "subject.txt").write_text("Spring")
    (tmp_path / "spring" / "text.txt").write_text("Hello")
    database = Database(sqlite_url)
    schema.upgrade(database)
    settings = config.load(SAMPLE, secrets=False)
    store = settings.stores["main"].model_copy(update={"list_id": "no list id"})
    composer = Composer(database, store, store_id=1, web=settings.web, clock=lambda: NOW)
    with database.begin() as connection:
        here = World(connection)
        here.person("anna")
        token_keys.signing(connection, now=NOW)
        run_id = here.sending()
        (claimed,) = here.claim(run_id)
        connection.execute(
            tables.template.update().values(content=Template.load(tmp_path / "spring").freeze())
        )
        run = runs.find(connection, run_id)
        activity = activities.find(connection, run.activity_id)
    assert asyncio.run(composer.enclosed_octets(run, activity)) == 0
    assert (
        list(map(str, asyncio.run(composer.compose([claimed, claimed], run, activity))))
        == ["'no list id' is no list identifier"] * 2
    )
    database.close()


def test_a_running_daemon_signs_with_no_revoked_key(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "spring").mkdir()
    (tmp_path / "spring" / "subject.txt").write_text("Spring")
    (tmp_path / "spring" / "text.txt").write_text("Hello")
    database = Database(sqlite_url)
    schema.upgrade(database)
    settings = config.load(SAMPLE, secrets=False)
    composer = Composer(database, settings.stores["main"], store_id=1, web=settings.web, clock=lambda: NOW)
    with database.begin() as connection:
        here = World(connection)
        here.person("anna")
        token_keys.signing(connection, now=NOW)
        run_id = here.sending()
        (claimed,) = here.claim(run_id)
        frozen = Template.load(tmp_path / "spring").freeze()
        connection.execute(tables.template.update().values(content=frozen))

    def compose() -> Letter:
        with database.look() as connection:
            run = runs.find(connection, run_id)
            activity = activities.find(connection, run.activity_id)
        [letter] = asyncio.run(composer.compose([claimed], run, activity))
        assert isinstance(letter, Letter)
        return letter

    def is_good(letter: Letter) -> bool:
        with database.look() as connection:
            return tokens.verify(letter.envid, token_keys.verifying(connection), now=NOW) is not None

    first = compose()
    assert is_good(first)
    with database.begin() as connection:
        token_keys.revoke(connection, 0, now=NOW)
    assert not is_good(first)
    assert is_good(compose())
    database.close()


def test_the_use_of_a_key_is_told(sqlite_url: str) -> None:
    with world(sqlite_url) as here:
        here.person("anna")
        token_keys.signing(here.connection, now=NOW - DAY)
        here.sending()
        token_keys.rotate(here.connection, now=NOW)
        new, old = token_keys.everything(here.connection)
        assert (old.id, old.runs, old.used_at, old.created_at, old.retired_at) == (0, 1, NOW, NOW - DAY, NOW)
        assert (new.id, new.runs, new.used_at) == (1, 0, None)
