"""The rules: how they are written in TOML, and how the one that fits is found."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from mailbound.classify import literals, normal, tables
from mailbound.errors import ConfigError
from mailbound.model import Category
from mailbound.reading.phase import Phase
from mailbound.status import StatusCode

_PACKAGED = "rules.toml"
_KEYS = frozenset(
    {
        *("name", "category", "reason", "permanent", "class"),
        *("status", "code", "text", "unless", "mta", "type", "phase"),
        *("example", "source"),
    }
)
_CONDITIONS = frozenset({"status", "code", "text", "mta", "type", "phase"})
_FAMILY = re.compile(r"\{([a-z]+)\}")


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of a failure. `text` is as `normal.text` returns it; what is not known is None, 0 or empty."""

    status: StatusCode | None
    code: int = 0
    text: str = ""
    mta: str = ""
    type: str = ""
    phase: Phase | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One piece of experience. Whatever conditions it has must all hold."""

    name: str
    category: Category
    reason: str = ""  # of the shared vocabulary, where that of the category is too wide
    permanent: bool | None = None  # None: what the class of the status or of the reply says
    class_: int = 5  # of a failure that has no code
    status: frozenset[StatusCode] = frozenset()
    code: frozenset[int] = frozenset()
    text: tuple[str, ...] = ()  # patterns, one of which must be found
    unless: str = ""
    mta: str = ""
    type: str = ""
    phase: frozenset[Phase] = frozenset()
    example: str = ""
    source: str = ""

    def allows(self, failure: Failure) -> bool:
        """Tell whether the rule may speak of this failure, its `text` set aside."""
        return (
            (not self.status or failure.status in self.status)
            and (not self.code or failure.code in self.code)
            and (not self.type or failure.type == self.type)
            and (not self.phase or failure.phase in self.phase)
            and (not self.mta or _is_in(self.mta, failure.mta or failure.text))
            and not (self.unless and _is_in(self.unless, failure.text))
        )


@dataclass(frozen=True, slots=True)
class _Try:
    """One pattern of a rule, or its lack of patterns."""

    rule: Rule
    text: str

    def fits(self, failure: Failure) -> bool:
        return (not self.text or _is_in(self.text, failure.text)) and self.rule.allows(failure)


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """The rules in order, and the version of the files they came with."""

    version: str
    ordered: tuple[Rule, ...]
    by_name: Mapping[str, Rule] = field(init=False)
    _tries: Sequence[_Try] = field(init=False)
    _index: literals.Index = field(init=False)
    _by_status: Mapping[StatusCode, Rule] = field(init=False)
    _by_code: Mapping[int, Rule] = field(init=False)
    _giving_up: int = field(init=False)
    registered: tuple[Rule, ...] = ()  # what a code alone says

    def __post_init__(self) -> None:
        """Build the indexes."""
        setting = object.__setattr__
        both = (*self.ordered, *self.registered)
        setting(self, "by_name", {rule.name: rule for rule in both})
        tries = [_Try(rule, text) for rule in self.ordered for text in rule.text or ("",)]
        samples = [rule.example.lower() for rule in self.ordered]
        setting(self, "_tries", tries)
        setting(self, "_index", literals.Index([each.text for each in tries], samples))
        setting(self, "_by_status", {code: rule for rule in self.registered for code in rule.status})
        setting(self, "_by_code", {code: rule for rule in self.registered for code in rule.code})
        # By the text of these rules a mailer says that it has tried for long enough.
        expired = (n for n, each in enumerate(tries) if each.text and each.rule.category is Category.EXPIRED)
        setting(self, "_giving_up", sum(1 << number for number in expired))

    @classmethod
    def load(cls, *extra: Path) -> Rules:
        """Return the packaged rules behind those of the files in `extra`. Raises ConfigError with every fault."""
        packaged = resources.files("mailbound").joinpath(_PACKAGED).read_text("utf-8")
        faults: list[str] = []
        files: list[list[Rule]] = []
        version = ""
        words: dict[str, str] = {}
        for name, text in [(_PACKAGED, packaged), *((str(path), _text(path, faults)) for path in extra)]:
            try:
                read = tomllib.loads(text)
            except tomllib.TOMLDecodeError as error:
                faults.append(f"{name}: {error}")
                continue
            version = "+".join(filter(None, (version, str(read.get("version", "")))))
            words |= {each: _family(written) for each, written in read.get("words", {}).items()}
            files.append(_rules(name, read.get("rule", []), words, faults))
        if faults:
            raise ConfigError(faults)
        ordered = tuple(rule for rules in (*files[1:], files[0]) for rule in rules)
        return cls(version, ordered, registered=tuple(_registered()))

    def find(self, failure: Failure) -> tuple[Rule | None, bool]:
        """Return the first rule that fits, None if there is none, and whether the text tells of giving up."""
        candidates = self._index.candidates(failure.text)
        given_up = any(self._tries[n].fits(failure) for n in literals.bits(candidates & self._giving_up))
        for number in literals.bits(candidates):
            if self._tries[number].fits(failure):
                return self._tries[number].rule, given_up
        return self._of_status(failure.status) or self._by_code.get(failure.code), given_up

    def _of_status(self, status: StatusCode | None) -> Rule | None:
        if status is None or status.is_bare:
            return None
        # A detail that stands nowhere counts as the undefined one of its subject (RFC 3463 §2).
        undefined = StatusCode(status.class_, status.subject, 0)
        return self._by_status.get(status) or self._by_status.get(undefined)


@cache
def packaged() -> Rules:
    """Return the packaged rules."""
    return Rules.load()


def _registered() -> Iterator[Rule]:
    for row in tables.codes():
        permanent = None if row.category not in tables.SOFT else False
        yield Rule(
            name=row.rule,
            category=row.category,
            reason=row.reason,
            permanent=permanent,
            status=row.status,
            code=row.code,
            example=row.name,
            source=row.source,
        )


def _text(path: Path, faults: list[str]) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path}: {error}")
        return ""


def _rules(
    name: str, read: Iterable[Mapping[str, Any]], words: Mapping[str, str], faults: list[str]
) -> list[Rule]:
    found: list[Rule] = []
    for number, table in enumerate(read, 1):
        try:
            rule = _rule(table, words)
            if name != _PACKAGED:  # what we ship is tested, so a start need not wait for it
                for pattern in (*rule.text, rule.unless, rule.mta):
                    re.compile(pattern)
            found.append(rule)
        except (ValueError, TypeError, KeyError, re.error) as error:
            faults.append(f"{name}: rule {number} ({table.get('name', 'without a name')}): {error}")
    return found


def _rule(table: Mapping[str, Any], words: Mapping[str, str]) -> Rule:
    unknown = table.keys() - _KEYS
    if unknown:
        raise ValueError(f"unknown key {', '.join(sorted(unknown))}")
    if not table.keys() & _CONDITIONS:
        raise ValueError(f"it has none of {', '.join(sorted(_CONDITIONS))}, and would fit everything")
    return Rule(
        name=str(table["name"]),
        category=Category(table["category"]),
        reason=tables.known_reason(table.get("reason", "")),
        permanent=table.get("permanent"),
        class_=table.get("class", 5),
        status=frozenset(code for text in table.get("status", ()) for code in tables.status_codes(text)),
        code=frozenset(table.get("code", ())),
        text=_patterns(table.get("text", ()), words),
        unless=_either(table.get("unless", ()), words),
        mta=_either(table.get("mta", ()), words),
        type=str(table.get("type", "")),
        phase=frozenset(Phase(word) for word in table.get("phase", ())),
        example=table.get("example", ""),
        source=table.get("source", ""),
    )


def _family(written: str | list[str]) -> str:
    return written if isinstance(written, str) else f"(?:{'|'.join(written)})"


def _patterns(written: str | list[str], words: Mapping[str, str]) -> tuple[str, ...]:
    each_written = [written] if isinstance(written, str) else written
    filled = (_FAMILY.sub(lambda match: words[match[1]], each) for each in each_written if each)
    return tuple(normal.plain(each) for each in filled)  # a text has no accents, so a pattern may have them


def _either(written: str | list[str], words: Mapping[str, str]) -> str:
    return "|".join(_patterns(written, words))


# Compiled when it is first tried: there are a thousand patterns, and most commands try none of them.
_compiled = cache(re.compile)


def _is_in(pattern: str, text: str) -> bool:
    return _compiled(pattern).search(text) is not None
