"""The sections of config.toml as frozen values. A field is a key; its default is what the sample file says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import quote as percent_encode
from urllib.parse import urlsplit, urlunsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mailbound import tokens
from mailbound.config import quantities as q

Duration = Annotated[timedelta, BeforeValidator(q.duration)]
PositiveDuration = Annotated[timedelta, BeforeValidator(q.positive_duration)]
Size = Annotated[int, BeforeValidator(q.size), Field(json_schema_extra={"written": "size"})]
Port = Annotated[int, BeforeValidator(q.port)]
Count = Annotated[int, BeforeValidator(q.count)]
Connections = Annotated[int, BeforeValidator(q.connections)]
Rate = Annotated[float, BeforeValidator(q.rate)]
Share = Annotated[float, BeforeValidator(q.share)]
Line = Annotated[str, BeforeValidator(q.line)]
Address = Annotated[str, BeforeValidator(q.mailbox_address)]
Host = Annotated[str, BeforeValidator(q.host)]
Credential = Annotated[str, BeforeValidator(q.credential)]
Tls = Literal["implicit", "starttls", "insecure"]

Finding = tuple[str, str]
"""A key within the section, and what is to be said about it."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a file is read in: where relative paths begin, and the secrets at hand by their names."""

    folder: Path = Path()
    state_folder: Path = Path()
    secrets: dict[str, SecretStr] = field(default_factory=dict)


class SectionFaults(ValueError):  # noqa: N818 - several at once
    """Faults between the keys of one section."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        """Keep the findings for the loader, which knows the section's name."""
        super().__init__("; ".join(f"{key}: {text}" for key, text in findings))
        self.findings = findings


class Section(BaseModel):
    """A frozen table of the file. Keys that it does not know are faults."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, populate_by_name=True
    )

    def doubts(self) -> Iterator[Finding]:
        """Give what is allowed, but deserves a second look."""
        yield from ()

    def _faults(self) -> Iterator[Finding]:
        yield from ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if findings := tuple(self._faults()):
            raise SectionFaults(findings)
        return self


class Database(Section):
    """`[database]`: where everything is kept."""

    url: Line = Field("sqlite:///mailbound.db", validate_default=True)
    password_credential: Credential | None = None
    _password: SecretStr | None = PrivateAttr(None)

    def model_post_init(self, context: Any, /) -> None:
        """Take the password from the surroundings."""
        self._password = _secret(context, self.password_credential)

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


def _secret(surroundings: Surroundings | None, name: str | None) -> SecretStr | None:
    return surroundings.secrets.get(name) if surroundings and name else None


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
        return _path(value, info)


def _path(value: object, info: ValidationInfo) -> Path:
    path = value if isinstance(value, Path) else Path(q.line(value))
    return info.context.folder / path if info.context else path


class Sending(Section):
    """`[sending]`: how runs and deliveries proceed."""

    time_zone: Annotated[ZoneInfo, BeforeValidator(q.time_zone)] = ZoneInfo("UTC")
    grace: PositiveDuration = timedelta(hours=1)
    expires_after: PositiveDuration = timedelta(days=4)
    retry_first: PositiveDuration = timedelta(minutes=5)
    retry_longest: PositiveDuration = timedelta(hours=2)
    in_doubt: Literal["resend", "hold"] = "resend"
    domain_rate: Rate = 0.0
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
    bounce_count: Count = 50
    bounce_share: Share = 0.20


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

    def _faults(self) -> Iterator[Finding]:
        if self.budget < self.largest:
            yield "budget", f"it must hold one mail of the `largest` size, {q.write_size(self.largest)}"


class Web(Section):
    """`[web]`: what recipients can reach."""

    unsubscribe_url: Annotated[str, BeforeValidator(q.https_url)] | None = None


class Account(Section):
    """What an outbound and an inbound account share: where the server is and how to log in."""

    usual_ports: ClassVar[dict[str, int]]

    address: Address
    host: Host
    port: Port
    tls: Tls = "implicit"
    ca_file: Path | None = None
    password_credential: Credential | None = None
    _password: SecretStr | None = PrivateAttr(None)

    def model_post_init(self, context: Any, /) -> None:
        """Take the password from the surroundings."""
        self._password = _secret(context, self.password_credential)

    @property
    def password(self) -> SecretStr | None:
        """Return the password, None if there is none (or `load` was not asked for secrets and found none)."""
        return self._password

    @property
    def is_local(self) -> bool:
        """Return whether the server is on this machine."""
        return q.is_loopback(self.host)

    def doubts(self) -> Iterator[Finding]:
        """Give what is allowed, but deserves a second look."""
        if self.tls == "insecure" and not self.is_local:
            yield "tls", f"mail to and from {self.host} can be read and changed on its way"
        usual = {port: tls for tls, port in self.usual_ports.items() if tls != "insecure"}
        if self.port in usual and usual[self.port] != self.tls and not self.is_local:
            yield "port", f'{self.port} is the port of tls = "{usual[self.port]}", not of "{self.tls}"'

    @model_validator(mode="before")
    @classmethod
    def _usual_port(cls, table: Any) -> Any:
        if isinstance(table, dict) and "port" not in table:
            tls = table.get("tls", "implicit")
            return {**table, "port": cls.usual_ports.get(tls if isinstance(tls, str) else "", 0) or 1}
        return table

    @field_validator("ca_file", mode="before")
    @classmethod
    def _readable(cls, value: object, info: ValidationInfo) -> Path | None:
        if value is None:
            return None
        path = _path(value, info)
        if not os.access(path, os.R_OK):
            raise ValueError(f"there is no readable file {q.quote(str(path))}")
        return path

    def _faults(self) -> Iterator[Finding]:
        if self.ca_file and self.tls == "insecure":
            yield "ca_file", 'it is of no use with tls = "insecure"; remove one of them'


_NO_CLEAR_PASSWORDS = (
    'a password must not travel in the clear to {}; use "implicit" or "starttls" (RFC 8314 §3)'
)


class Outbound(Account):
    """`[stores.NAME.outbound]`: the SMTP relay, and the address that answers go to."""

    usual_ports: ClassVar[dict[str, int]] = {"implicit": 465, "starttls": 587, "insecure": 25}

    username: Line | None = None
    token_command: tuple[str, ...] | None = None
    ehlo_name: Annotated[str, BeforeValidator(q.ehlo_name)] | None = None
    connections: Connections = 10
    rate: Rate = 0.0

    @field_validator("token_command", mode="before")
    @classmethod
    def _command(cls, value: object) -> tuple[str, ...] | None:
        if value is None:
            return None
        if not isinstance(value, list | tuple) or not value:
            raise ValueError('write the program and its arguments as a list: ["/usr/local/bin/relay-token"]')
        words = tuple(q.line(word) for word in value)
        if not words[0].startswith("/"):
            raise ValueError(f"{q.quote(words[0])} is not an absolute path")
        return words

    def _faults(self) -> Iterator[Finding]:
        yield from super()._faults()
        if self.password_credential and self.token_command:
            yield "token_command", "there is a password_credential as well; keep one of them"
        if self.username and not (self.password_credential or self.token_command):
            yield "username", "it cannot log in without a password_credential or a token_command"
        for key in ("password_credential", "token_command"):
            if getattr(self, key) and not self.username:
                yield key, "it is of no use without a username"
        if self.username and self.tls == "insecure" and not self.is_local:
            yield "tls", _NO_CLEAR_PASSWORDS.format(self.host)


class Inbox(Account):
    """`[stores.NAME.inbound]`: the mailbox that bounces come back to; its address is the sender's."""

    usual_ports: ClassVar[dict[str, int]] = {"implicit": 995, "starttls": 110, "insecure": 110}

    subaddressing: bool = True
    protocol: Literal["pop3"] = "pop3"
    username: Line
    after_storing: Literal["delete", "keep"] = "delete"

    def doubts(self) -> Iterator[Finding]:
        """Give what is allowed, but deserves a second look."""
        yield from super().doubts()
        local_part = self.address.rpartition("@")[0]
        if self.subaddressing and "+" in local_part:
            yield "address", f"will mail to {local_part}+TOKEN arrive? its local part has a + already"

    @field_validator("protocol", mode="before")
    @classmethod
    def _spoken(cls, value: object) -> object:
        if value == "imap":
            raise ValueError('IMAP is not available in this version; use "pop3"')
        return value

    def _faults(self) -> Iterator[Finding]:
        yield from super()._faults()
        local_part = self.address.rpartition("@")[0].encode()
        if self.subaddressing and len(local_part) > tokens.LOCAL_PART_LIMIT:
            yield (
                "address",
                f"its local part has {len(local_part)} octets, a token leaves room for {tokens.LOCAL_PART_LIMIT} "
                "(RFC 5321 §4.5.3.1.1); use a shorter address, or subaddressing = false",
            )
        if not self.password_credential and not self.is_local:
            yield "password_credential", "it is missing; only the simulator takes an empty password"
        if self.tls == "insecure" and not self.is_local:
            yield "tls", _NO_CLEAR_PASSWORDS.format(self.host)


class Store(Section):
    """`[stores.NAME]`: a shop, brand or newsletter that sends."""

    name: Line
    list_id: Annotated[str, BeforeValidator(q.list_id)]
    from_: Address | None = Field(None, alias="from")
    outbound: Outbound
    inbound: Inbox


StoreKey = Annotated[str, AfterValidator(q.store_key)]


class Config(Section):
    """The whole file."""

    database: Database = Field(default_factory=Database)
    log: Log = Field(default_factory=Log)
    templates: Templates = Field(default_factory=Templates)
    sending: Sending = Field(default_factory=Sending)
    breaker: Breaker = Field(default_factory=Breaker)
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

    @field_validator("stores", mode="after")
    @classmethod
    def _some(cls, stores: dict[str, Store]) -> dict[str, Store]:
        if not stores:
            raise ValueError("there is no store; write at least one, as [stores.NAME]")
        return stores
