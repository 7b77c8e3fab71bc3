"""What mailbound ships to begin with: the sample configuration, and a template to change."""

from __future__ import annotations

import shutil
import sys
from importlib import resources
from pathlib import Path

from mailbound.errors import InputError

_CHECKOUT = Path(__file__).parents[3] / "config.toml"
_INSTALLED = Path(sys.prefix) / "share" / "mailbound" / "config.toml"


def config() -> str:
    """Return the commented sample of config.toml. Raises InputError if it was not installed."""
    for path in (_CHECKOUT, _INSTALLED):
        if path.exists():
            return path.read_text("utf-8")
    raise InputError(f"the sample configuration is missing; it belongs to {_INSTALLED}")


def write_template(folder: Path) -> None:
    """Write the sample template as a new folder."""
    with resources.as_file(resources.files("mailbound.samples") / "spring") as sample:
        shutil.copytree(sample, folder)
