"""Who gets a run, who does not, and why."""

from __future__ import annotations

import pytest

from mailbound.database import changes, runs, tables, tally
from mailbound.model import RecipientStatus, Source
from world import COMMAND, DAY, NOW, World, world


def _status(here: World, recipient_id: int, status: RecipientStatus, *, days: int | None = None) -> None:
    address_id = here.connection.execute(
        tables.recipient.select().where(tables.recipient.c.id == recipient_id)
    ).one()
    changes.set_status(
        here.connection,
        address_id=address_id.address_id,
        status=status,
        until=NOW + days * DAY if days is not None else None,
        cause=COMMAND,
        now=NOW,
    )


@pytest.mark.parametrize("chunk", [1, 2, 1000], ids=lambda size: f"chunks of {size}")
def test_everybody_of_the_segment_gets_a_delivery_or_a_reason(database_url: str, chunk: int) -> None:
    with world(database_url) as here:
        here.person("wanted")
        here.person("out", opted_in=False)
        here.person("silent", opted_in=None)
        here.wish(here.person("all-stores", opted_in=None), store="*", receive=True)
        here.wish(here.person("no-store", opted_in=True), store="*", receive=False, source=Source.USER)
        own = here.person("own-wish", opted_in=False)
        here.wish(own, store="*", receive=True)
        here.wish(here.person("elsewhere", opted_in=None), store="other", receive=True)
        _status(here, here.person("dead"), RecipientStatus.UNDELIVERABLE)
        _status(here, here.person("suspended"), RecipientStatus.SUSPENDED, days=1)
        _status(here, here.person("back"), RecipientStatus.SUSPENDED, days=0)
        _status(here, here.person("probation"), RecipientStatus.PROBATION)
        here.person("first", address="Same@Example.org")
        here.person("second", address="same@example.ORG")
        here.person("third", address="same@example.org", opted_in=False)
        run_id = here.sending(chunk=chunk)
        assert here.states(run_id) == {
            "wanted": "queued",
            "out": "skipped not-opted-in",
            "silent": "skipped not-opted-in",
            "all-stores": "queued",
            "no-store": "skipped not-opted-in",
            "own-wish": "skipped not-opted-in",
            "elsewhere": "skipped not-opted-in",
            "dead": "skipped undeliverable",
            "suspended": "skipped suspended",
            "back": "queued",
            "probation": "queued",
            "first": "queued",
            "second": "skipped same-address",
            "third": "skipped not-opted-in",
        }
        assert tally.of_run(here.connection, run_id) == {"open": 5, "skipped": 9}
        assert tally.differences(here.connection) == []


def test_an_unwanted_twin_does_not_take_the_place_of_a_wanted_one(database_url: str) -> None:
    with world(database_url) as here:
        here.person("older", address="same@example.org", opted_in=False)
        here.person("younger", address="same@example.org")
        run_id = here.sending(chunk=1)
        assert here.states(run_id) == {"older": "skipped not-opted-in", "younger": "queued"}


def test_a_suppressed_domain_is_skipped(database_url: str) -> None:
    with world(database_url) as here:
        here.person("near", address="a@example.org")
        here.person("far", address="b@example.net")
        domain = tables.domain
        domain_id = here.connection.execute(domain.select().where(domain.c.name == "example.net")).one().id
        here.connection.execute(
            tables.suppression.insert().values(domain_id=domain_id, reason="competitor", created_at=NOW)
        )
        assert here.states(here.sending()) == {"near": "queued", "far": "skipped suppressed"}


def test_freezing_again_adds_nobody(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna")
        run_id = here.sending()
        here.freeze(run_id)
        assert here.states(run_id) == {"anna": "queued"}
        assert runs.find(here.connection, run_id).frozen_at == NOW


def test_a_segment_narrows_the_audience(database_url: str) -> None:
    with world(database_url) as here:
        here.person("anna", country="DE")
        here.person("bob", country="FR")
        here.connection.execute(
            tables.segment.insert().values(name="germans", condition="country = 'DE'", created_at=NOW)
        )
        run_id = here.sending(here.activity(segment="germans"))
        assert here.states(run_id) == {"anna": "queued"}
