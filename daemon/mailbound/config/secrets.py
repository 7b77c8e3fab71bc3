"""Passwords: read from systemd's credentials or from the environment, never from config.toml."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from mailbound.config.quantities import has_control, quote

_LARGEST = 64 * 1024  # octets; no password or key is larger


def read(name: str, *, environment: Mapping[str, str] = os.environ) -> SecretStr:
    """Return the secret called `name`. Raises ValueError, which says how to hand it over, if there is none.

    It is the file of that name in `$CREDENTIALS_DIRECTORY` (systemd.exec(5), LoadCredential=) or, where there
    is no such folder, the environment variable of that name in capitals. A newline at its end is dropped.
    """
    folder = environment.get("CREDENTIALS_DIRECTORY")
    text = _from_file(Path(folder) / name) if folder else _from_variable(name, environment)
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError(f"the secret {quote(name)} is empty")
    if has_control(text):
        raise ValueError(f"the secret {quote(name)} holds a control character")
    return SecretStr(text)


def variable(name: str) -> str:
    """Return the environment variable that stands for the credential `name`."""
    return name.upper().replace("-", "_")


def _from_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST).decode()
    except FileNotFoundError:
        raise ValueError(
            f"systemd handed over no credential {quote(path.name)}: "
            f"is the file there that LoadCredential={path.name}:FILE in the unit names?"
        ) from None
    except UnicodeDecodeError:
        raise ValueError(f"the secret {quote(path.name)} is not UTF-8") from None
    except OSError as error:
        raise ValueError(f"the credential {quote(path.name)} cannot be read: {error.strerror}") from None


def _from_variable(name: str, environment: Mapping[str, str]) -> str:
    try:
        return environment[variable(name)]
    except KeyError:
        raise ValueError(
            f"there is no secret {quote(name)}: set the environment variable {variable(name)}, "
            f"or LoadCredential={name}:FILE in the unit"
        ) from None
