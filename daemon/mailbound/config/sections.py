"""The sections of config.toml as frozen values. A field is a key; its default is the sample file's value."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote as percent_encode
from urllib.parse import urlsplit, urlunsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from mailbound.config import quantities as q
from mailbound.config.accounts import Store
from mailbound.config.section import (
    Count,
    Credential,
    Duration,
    Finding,
    PositiveDuration,
    Rate,
    RateByDomain,
    Section,
    Share,
    Size,
    Surroundings,
    Times,
    absolute,
    secret,
)


class Database(Section):
    """`[database]`: where everything is kept."""

    url: Annotated[str, BeforeValidator(q.long_line)] = Field("sqlite:///mailbound.db", validate_default=True)
    password_credential: Credential | None = None
    _password: SecretStr | None = PrivateAttr(None)

    def model_post_init(self, context: Any, /) -> None:
        """Take the password from the surroundings."""
        self._password = secret(context, self.password_credential)

    @property
    def password(self) -> SecretStr | None:
        """Return the password, None if there is none at hand."""
        return self._password

    @property
    def is_sqlite(self) -> bool:
        """Return whether it is an SQLite file."""
        return self.url.startswith("sqlite:")

    def connect_url(self) -> str:
        """Return the URL with the password in it, for the engine alone: never show or log it."""
        if self._password is None:
            return self.url
        parts = urlsplit(self.url)
        name, _, place = parts.netloc.rpartition("@")
        login = f"{name}:{percent_encode(self._password.get_secret_value(), safe='')}"
        return urlunsplit(parts._replace(netloc=f"{login}@{place}"))

    @field_validator("url", mode="after")
    @classmethod
    def _usable(cls, url: str, info: ValidationInfo) -> str:
        scheme, colon, rest = url.partition("://")
        if scheme == "sqlite" and colon:
            return _sqlite_url(rest, info.context)
        if scheme != "postgresql+psycopg" or not colon:
            raise ValueError('write "sqlite:///FILE" or "postgresql+psycopg://USER@HOST/DATABASE"')
        if ":" in urlsplit(url).netloc.rpartition("@")[0] or "password=" in url:
            raise ValueError("a password does not stand in this file; use password_credential")
        return url

    def _faults(self) -> Iterator[Finding]:
        if self.password_credential and self.is_sqlite:
            yield "password_credential", "SQLite has no passwords; remove it"
        elif self.password_credential and not urlsplit(self.url).username:
            yield "password_credential", "whose password? write postgresql+psycopg://USER@HOST/DATABASE"


def _sqlite_url(rest: str, surroundings: Surroundings | None) -> str:
    if not rest.startswith("/") or rest in {"/", "/:memory:"} or "?" in rest:
        raise ValueError('write "sqlite:///FILE"; the file is what survives a restart')
    folder = surroundings.state_folder if surroundings else Path()
    return f"sqlite:///{folder / rest[1:]}"


class Log(Section):
    """`[log]`: how much is said, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    addresses: Literal["masked", "clear"] = "masked"
    format: Literal["json", "console"] | None = None

    def doubts(self) -> Iterator[Finding]:
        """Give what is allowed, but deserves a second look."""
        if self.addresses == "clear":
            yield "addresses", "the log will name the recipients; mind how long it is kept and who reads it"


class Templates(Section):
    """`[templates]`: where they lie."""

    folder: Path = Field(Path("templates"), validate_default=True)

    @field_validator("folder", mode="before")
    @classmethod
    def _absolute(cls, value: object, info: ValidationInfo) -> Path:
        return absolute(value, info)


class Sending(Section):
    """`[sending]`: how runs and deliveries proceed."""

    time_zone: Annotated[ZoneInfo, BeforeValidator(q.time_zone)] = ZoneInfo("UTC")
    grace: PositiveDuration = timedelta(hours=1)
    expires_after: PositiveDuration = timedelta(days=4)
    retry_first: PositiveDuration = timedelta(minutes=5)
    retry_longest: PositiveDuration = timedelta(hours=2)
    in_doubt: Literal["resend", "hold"] = "resend"
    resend_soft: Times = 0
    resend_every: PositiveDuration = timedelta(days=1)
    domain_rate: Rate = 0.0
    domain_rates: RateByDomain = Field(default_factory=dict)
    drain: Duration = timedelta(seconds=30)

    def _faults(self) -> Iterator[Finding]:
        if self.retry_longest < self.retry_first:
            longest, first = q.write_duration(self.retry_longest), q.write_duration(self.retry_first)
            yield "retry_longest", f"{longest} is shorter than retry_first, {first}"
        if self.expires_after <= self.retry_first:
            expiry, first = q.write_duration(self.expires_after), q.write_duration(self.retry_first)
            yield "expires_after", f"{expiry} leaves no time for a second try after retry_first, {first}"


class Breaker(Section):
    """`[breaker]`: when a run halts by itself."""

    blame_count: Count = 20
    blame_share: Share = 0.05


class Guard(Section):
    """`[guard]`: when bounces are so many and so alike that an operator must look before they count."""

    window: PositiveDuration = timedelta(days=1)
    count: Count = 20
    run_share: Share = 0.20
    alike_share: Share = 0.05
    domain_share: Share = 0.50


class Policy(Section):
    """`[policy]`: when an address counts as dead, and when as troubled."""

    confirm_events: Count = 2
    confirm_apart: Duration = timedelta(days=3)
    unclear_events: Count = 3
    soft_limit: Count = 5
    soft_window: PositiveDuration = timedelta(days=30)
    suspend_for: PositiveDuration = timedelta(days=30)
    quiet_success: PositiveDuration = timedelta(days=5)

    def _faults(self) -> Iterator[Finding]:
        if self.soft_window.days < self.soft_limit:  # one a day counts at most
            window = q.write_duration(self.soft_window)
            yield "soft_limit", f"{self.soft_limit} soft bounces, one a day, cannot be passed within {window}"


class Inbound(Section):
    """`[inbound]`: how mailboxes are read and how long mail is kept."""

    poll: PositiveDuration = timedelta(seconds=60)
    largest: Size = 10 * 2**20
    keep_for: PositiveDuration = timedelta(days=90)
    budget: Size = 2 * 2**30
    quarantine_for: PositiveDuration = timedelta(days=14)
    quarantine_budget: Size = 100 * 2**20

    def _faults(self) -> Iterator[Finding]:
        if self.budget < self.largest:
            yield "budget", f"it must hold one mail of the `largest` size, {q.write_size(self.largest)}"
        if self.quarantine_budget >= self.budget:
            written = q.write_size(self.budget)
            yield "quarantine_budget", f"it must leave room for genuine mail within the `budget`, {written}"


class Web(Section):
    """`[web]`: what recipients can reach."""

    unsubscribe_url: Annotated[str, BeforeValidator(q.https_url)] | None = None


StoreKey = Annotated[str, AfterValidator(q.store_key)]


class Config(Section):
    """The whole file."""

    database: Database = Field(default_factory=Database)
    log: Log = Field(default_factory=Log)
    templates: Templates = Field(default_factory=Templates)
    sending: Sending = Field(default_factory=Sending)
    breaker: Breaker = Field(default_factory=Breaker)
    guard: Guard = Field(default_factory=Guard)
    policy: Policy = Field(default_factory=Policy)
    inbound: Inbound = Field(default_factory=Inbound)
    web: Web = Field(default_factory=Web)
    stores: dict[StoreKey, Store]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what is allowed but deserves a second look, one line each, beginning with the dotted key."""
        sections: dict[str, Section] = {"log": self.log}
        for name, store in self.stores.items():
            sections |= {f"stores.{name}.outbound": store.outbound, f"stores.{name}.inbound": store.inbound}
        return tuple(
            f"{place}.{key}: {text}" for place, section in sections.items() for key, text in section.doubts()
        )

    @property
    def secrets(self) -> tuple[SecretStr, ...]:
        """Return every secret that is at hand, so that the log can hide it wherever it turns up."""
        accounts = [account for store in self.stores.values() for account in (store.outbound, store.inbound)]
        return tuple(owner.password for owner in (self.database, *accounts) if owner.password is not None)

    @field_validator("stores", mode="after")
    @classmethod
    def _some(cls, stores: dict[str, Store]) -> dict[str, Store]:
        if not stores:
            raise ValueError("there is no store; write at least one, as [stores.NAME]")
        return stores
