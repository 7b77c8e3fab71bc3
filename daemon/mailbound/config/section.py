"""What a section of config.toml is made of: the frozen table, its findings, and the types of its values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    ValidationInfo,
    model_validator,
)

from mailbound.config import quantities as q

WRITTEN_AS_SIZE: dict[str, JsonValue] = {"written": "size"}
"""What marks a field whose octets are written as 10MiB."""

Duration = Annotated[timedelta, BeforeValidator(q.duration)]
PositiveDuration = Annotated[timedelta, BeforeValidator(q.positive_duration)]
Size = Annotated[int, BeforeValidator(q.size), Field(json_schema_extra=WRITTEN_AS_SIZE)]
Port = Annotated[int, BeforeValidator(q.port)]
Times = Annotated[int, BeforeValidator(q.times)]
Count = Annotated[int, BeforeValidator(q.count)]
Connections = Annotated[int, BeforeValidator(q.connections)]
Rate = Annotated[float, BeforeValidator(q.rate)]
RateByDomain = Annotated[dict[str, float], BeforeValidator(q.domain_rates)]
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


class SectionFaults(ValueError):
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


def secret(surroundings: Surroundings | None, name: str | None) -> SecretStr | None:
    """Return the secret called `name` if it is at hand."""
    return surroundings.secrets.get(name) if surroundings and name else None


def absolute(value: object, info: ValidationInfo) -> Path:
    """Return the path that `value` names; a relative one begins at the folder of the file."""
    path = value if isinstance(value, Path) else Path(q.long_line(value))
    return info.context.folder / path if info.context else path
