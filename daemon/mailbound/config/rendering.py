"""The effective configuration as TOML. What it prints can be loaded again; secrets are not in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from mailbound.config import quantities
from mailbound.config.section import WRITTEN_AS_SIZE, Section
from mailbound.config.sections import Config


def show(config: Config) -> str:
    """Return the effective configuration as TOML, with defaults; secrets are masked, unset keys comments."""
    return "\n".join(_lines("", config)).strip() + "\n"


def _lines(place: str, section: Section) -> Iterator[str]:
    inner: list[tuple[str, Section]] = []
    if place and any(not isinstance(value, BaseModel | dict) for _, value in section):
        yield f"\n[{place}]"
    for name, field in type(section).model_fields.items():
        key, value = field.alias or name, getattr(section, name)
        if isinstance(value, Section):
            inner.append((key, value))
        elif (
            isinstance(value, dict) and all(isinstance(table, Section) for table in value.values()) and value
        ):
            inner += ((f"{key}.{store}", table) for store, table in value.items())
        elif value is None:
            yield f"# {key} is unset"
        else:
            yield f"{key} = {_written(value, field)}{_secret(key, section)}"
    for key, table in inner:
        yield from _lines(f"{place}.{key}" if place else key, table)


def _written(value: object, field: FieldInfo) -> str:  # noqa: PLR0911 - one for each type
    if field.json_schema_extra == WRITTEN_AS_SIZE and isinstance(value, int):
        return f'"{quantities.write_size(value)}"'
    match value:
        case timedelta():
            return f'"{quantities.write_duration(value)}"'
        case ZoneInfo(key=key):
            return f'"{key}"'
        case tuple():
            return f"[{', '.join(_written(word, field) for word in value)}]"
        case dict():
            pairs = (f"{json.dumps(name)} = {_written(each, field)}" for name, each in value.items())
            return "{" + ", ".join(pairs) + "}"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}" if not value % 1 else repr(value)
        case int():
            return str(value)
        case Path() | str():
            return json.dumps(str(value), ensure_ascii=not str(value).isprintable())
    raise TypeError(f"{type(value).__name__} has no form in TOML")


def _secret(key: str, section: Section) -> str:
    if key != "password_credential":
        return ""
    return "  # ********" if isinstance(getattr(section, "password", None), SecretStr) else "  # not at hand"
