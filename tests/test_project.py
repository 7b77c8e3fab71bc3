"""The project file, the pins and the layers say the same, and what they say is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGE = ROOT / "daemon" / "mailbound"
CONTRACTS = {contract["name"]: contract for contract in PROJECT["tool"]["importlinter"]["contracts"]}
LOCKS = ["requirements.lock", "requirements-dev.lock"]
LONGEST_MODULE = 400


def pins(lock: str) -> dict[str, str]:
    """Return the block of each distribution in a lock, by its normalised name."""
    blocks = re.split(r"\n(?=\S)", (ROOT / lock).read_text().strip())
    return {block.partition("==")[0]: block for block in blocks}


def wanted(requirement: str) -> str:
    """Return the normalised name in a requirement."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_its_hashes_and_no_address_to_load_it_from(lock):
    assert [name for name, block in pins(lock).items() if "--hash=sha256:" not in block] == []
    assert "://" not in (ROOT / lock).read_text()


def test_the_pins_hold_all_that_the_project_asks_for():
    runtime = {wanted(requirement) for requirement in PROJECT["project"]["dependencies"]}
    tools = {wanted(requirement) for requirement in PROJECT["project"]["optional-dependencies"]["dev"]}
    assert runtime <= pins("requirements.lock").keys()
    assert runtime | tools <= pins("requirements-dev.lock").keys()


def test_both_locks_pin_the_same():
    development = pins("requirements-dev.lock")
    assert {name: block for name, block in development.items() if name in pins("requirements.lock")} == pins(
        "requirements.lock"
    )


def test_every_decision_is_bound_to_do_no_io():
    layers = CONTRACTS["imports go only downward"]["layers"]
    names = re.findall(r"\w+", next(layer for layer in layers if "policy" in layer))
    there = {name for name in names if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()}
    bound = {
        module.removeprefix("mailbound.") for module in CONTRACTS["the core does no I/O"]["source_modules"]
    }
    assert there - bound == {"segment"}, "segment has a contract of its own, since it builds SQL"


def test_no_module_is_longer_than_a_reader_can_hold():
    written = [
        path for path in PACKAGE.rglob("*.py") if path.parent.name != "versions"
    ]  # migrations are frozen
    lengths = {path: len(path.read_text().splitlines()) for path in written}
    assert {path.name: length for path, length in lengths.items() if length > LONGEST_MODULE} == {}
