"""Real servers for the tests, each private to one run: Postfix and Dovecot, PostgreSQL.

They listen on loopback ports of their own, keep everything in a directory of their own, and need nothing
of what the machine's packages may have set up.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

_PLACES = ("usr/sbin", "sbin", "usr/lib/postfix/sbin", "usr/lib/postgresql/*/bin")


def need(program: str) -> str:
    """Return the path of `program`; where it is missing, skip the test, or fail it under CI."""
    beyond = [str(folder) for place in _PLACES for folder in sorted(Path("/").glob(place), reverse=True)]
    path = os.pathsep.join([os.environ.get("PATH", ""), *beyond])
    return shutil.which(program, path=path) or _missing(f"{program} is not installed; `make servers` does it")


def need_root() -> None:
    """Return if we are root, if only in a user namespace; else skip the test, or fail it under CI."""
    if os.geteuid() != 0:
        _missing("servers that change their user need root; `make test` maps it without sudo")


def _missing(why: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)
