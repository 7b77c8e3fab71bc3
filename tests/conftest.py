"""What the tests share: real servers that start when a test first asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from servers.mailnet import MailNet
from servers.postgres import Postgres

# The machine may be busy, and no test is about how fast it is.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "long", settings.get_profile("here"), max_examples=3000
)  # --hypothesis-profile=long
settings.load_profile("here")


@pytest.fixture(scope="session")
def mailnet() -> Iterator[MailNet]:
    """Return the running mail servers; a test keeps to accounts of sender.test that bear its own name."""
    with MailNet(delay_warning="2s") as net:
        yield net


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Return the running PostgreSQL."""
    with Postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """Return the URL of an empty PostgreSQL database."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Return the URL of an SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path}/mailbound.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of an empty database; the test runs once on each engine."""
    name = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    return request.getfixturevalue(name)
