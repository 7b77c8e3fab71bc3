"""A store and its two accounts: `[stores.NAME]`, `[stores.NAME.outbound]` and `[stores.NAME.inbound]`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mailbound import tokens
from mailbound.config import quantities as q
from mailbound.config.section import (
    Address,
    Connections,
    Credential,
    Finding,
    Host,
    Line,
    Port,
    Rate,
    Section,
    Tls,
    absolute,
    secret,
)


class Account(Section):
    """What an outbound and an inbound account share: where the server is and how to log in."""

    usual_ports: ClassVar[dict[str, int]]

    address: Address
    host: Host
    port: Port
    tls: Tls = "implicit"
    ca_file: Path | None = None
    password_credential: Credential | None = None
    token_command: tuple[str, ...] | None = None
    _password: SecretStr | None = PrivateAttr(None)

    def model_post_init(self, context: Any, /) -> None:
        """Take the password from the surroundings."""
        self._password = secret(context, self.password_credential)

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
        ports = self.ports_of(getattr(self, "protocol", None))
        usual = {port: tls for tls, port in ports.items() if tls != "insecure"}
        if self.port in usual and usual[self.port] != self.tls and not self.is_local:
            yield "port", f'{self.port} is the port of tls = "{usual[self.port]}", not of "{self.tls}"'

    @model_validator(mode="before")
    @classmethod
    def _usual_port(cls, table: Any) -> Any:
        if isinstance(table, dict) and "port" not in table:
            tls = table.get("tls", "implicit")
            ports = cls.ports_of(table.get("protocol"))
            return {**table, "port": ports.get(tls if isinstance(tls, str) else "", 0) or 1}
        return table

    @classmethod
    def ports_of(cls, protocol: object) -> dict[str, int]:  # noqa: ARG003 - an inbox has a choice
        """Return the usual ports by their `tls`."""
        return cls.usual_ports

    @field_validator("ca_file", mode="before")
    @classmethod
    def _readable(cls, value: object, info: ValidationInfo) -> Path | None:
        if value is None:
            return None
        path = absolute(value, info)
        if not os.access(path, os.R_OK):
            raise ValueError(f"there is no readable file {q.quote(str(path))}")
        return path

    @field_validator("token_command", mode="before")
    @classmethod
    def _command(cls, value: object) -> tuple[str, ...] | None:
        if value is None:
            return None
        if not isinstance(value, list | tuple) or not value:
            raise ValueError('write the program and its arguments as a list: ["/usr/local/bin/relay-token"]')
        words = tuple(q.long_line(word) for word in value)
        if not words[0].startswith("/"):
            raise ValueError(f"{q.quote(words[0])} is not an absolute path")
        return words

    def _faults(self) -> Iterator[Finding]:
        if self.ca_file and self.tls == "insecure":
            yield "ca_file", 'it is of no use with tls = "insecure"; remove one of them'
        if self.password_credential and self.token_command:
            yield "token_command", "there is a password_credential as well; keep one of them"


_NO_CLEAR_PASSWORDS = (
    'a password must not travel in the clear to {}; use "implicit" or "starttls" (RFC 8314 §3)'
)


class Outbound(Account):
    """`[stores.NAME.outbound]`: the SMTP relay, and the address that answers go to."""

    usual_ports: ClassVar[dict[str, int]] = {"implicit": 465, "starttls": 587, "insecure": 25}

    username: Line | None = None
    ehlo_name: Annotated[str, BeforeValidator(q.ehlo_name)] | None = None
    connections: Connections = 10
    rate: Rate = 0.0

    def _faults(self) -> Iterator[Finding]:
        yield from super()._faults()
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
    imap_ports: ClassVar[dict[str, int]] = {"implicit": 993, "insecure": 143}

    subaddressing: bool = True
    protocol: Literal["pop3", "imap"] = "pop3"
    username: Line
    folder: Line | None = None
    after_storing: Literal["delete", "archive", "keep"] = "delete"
    archive_folder: Line | None = None

    @classmethod
    def ports_of(cls, protocol: object) -> dict[str, int]:
        """Return the usual ports of a protocol by their `tls`."""
        return cls.imap_ports if protocol == "imap" else cls.usual_ports

    def doubts(self) -> Iterator[Finding]:
        """Give what is allowed, but deserves a second look."""
        yield from super().doubts()
        local_part = self.address.rpartition("@")[0]
        if self.subaddressing and "+" in local_part:
            yield "address", f"will mail to {local_part}+TOKEN arrive? its local part has a + already"

    def _faults(self) -> Iterator[Finding]:
        yield from super()._faults()
        yield from self._imap_faults() if self.protocol == "imap" else self._pop3_faults()
        local_part = self.address.rpartition("@")[0].encode()
        if self.subaddressing and len(local_part) > tokens.LOCAL_PART_LIMIT:
            room = f"a token leaves room for {tokens.LOCAL_PART_LIMIT} (RFC 5321 §4.5.3.1.1)"
            mend = "use a shorter address, or subaddressing = false"
            yield "address", f"its local part has {len(local_part)} octets, {room}; {mend}"
        if not (self.password_credential or self.token_command) and not self.is_local:
            yield "password_credential", "it is missing; only the simulator takes an empty password"
        if self.tls == "insecure" and not self.is_local:
            yield "tls", _NO_CLEAR_PASSWORDS.format(self.host)

    def _imap_faults(self) -> Iterator[Finding]:
        if self.tls == "starttls":
            yield (
                "tls",
                'STARTTLS is not spoken with IMAP; use "implicit" (port 993), as RFC 8314 §3 wants it',
            )
        if self.after_storing == "archive" and not self.archive_folder:
            yield "archive_folder", 'it is missing; after_storing = "archive" needs to know where to'
        elif self.archive_folder and self.after_storing != "archive":
            yield "archive_folder", 'it is of no use without after_storing = "archive"'
        elif self.archive_folder and self.archive_folder == (self.folder or "INBOX"):
            yield "archive_folder", "mail is fetched from this folder; name another one"

    def _pop3_faults(self) -> Iterator[Finding]:
        for key in ("folder", "archive_folder"):
            if getattr(self, key):
                yield key, 'POP3 has no folders; use protocol = "imap", or remove it'
        if self.after_storing == "archive":
            yield (
                "after_storing",
                'POP3 has no folders to archive to; use "delete" or "keep", or protocol = "imap"',
            )


class Store(Section):
    """`[stores.NAME]`: a shop, brand or newsletter that sends."""

    name: Line
    list_id: Annotated[str, BeforeValidator(q.list_id)]
    from_: Address | None = Field(None, alias="from")
    outbound: Outbound
    inbound: Inbox
