"""What bounced, grouped by its reason, its domain, its activity, the reporting server, the day or the store.

What is quarantined or undone is counted apart, since nothing shows that it is true.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from mailbound.database.reports import letters, sent
from mailbound.database.reports.letters import Letters
from mailbound.database.tables import activity, bounce, domain, run, store, tally
from mailbound.model import Disposition, Kind

COUNTED = (Disposition.APPLIED.value, Disposition.NOTED.value, Disposition.HELD.value)

_EPOCH = date(1970, 1, 1)


class By(StrEnum):
    """What bounces are grouped by."""

    REASON = "reason"
    DOMAIN = "domain"
    ACTIVITY = "activity"
    MTA = "mta"
    DAY = "day"
    STORE = "store"


@dataclass(frozen=True, slots=True)
class Group:
    """What came back, and how much was sent (None where nobody counts it)."""

    key: str
    refused: int = 0  # by our own relay, while we spoke to it
    reported: int = 0  # by a mail that came later
    permanent: int = 0  # of both
    delays: int = 0
    successes: int = 0
    complaints: int = 0
    unsubscribes: int = 0
    sent: int | None = None

    @property
    def bounces(self) -> int:
        """Return how many failures there were."""
        return self.refused + self.reported

    @property
    def share(self) -> float | None:
        """Return the failures as a share of what was sent; None where nothing was, or nobody knows."""
        return self.bounces / self.sent if self.sent else None


@dataclass(frozen=True, slots=True)
class Report:
    """The groups, the largest first (days: the earliest), and all of them together."""

    by: By
    groups: list[Group]
    total: Group
    dispositions: dict[str, int]  # of everything that came, counted or not
    letters: Letters | None = None  # what a person has to read; None for an activity

    @property
    def others(self) -> Group | None:
        """Return what is in no group because there were more than asked for, or None."""
        shown = [sum(getattr(group, name) for group in self.groups) for name in _COUNTS]
        rest = {name: getattr(self.total, name) - count for name, count in zip(_COUNTS, shown, strict=True)}
        return Group("others", **rest) if rest["refused"] + rest["reported"] else None


_COUNTS = ("refused", "reported", "permanent", "delays", "successes", "complaints", "unsubscribes")


def report(
    connection: sa.Connection,
    scope: sent.Scope = sent.EVERYTHING,
    by: By = By.REASON,
    *,
    limit: int | None = None,
) -> Report:
    """Return what bounced in a scope, in at most `limit` groups."""
    total = replace(_total(connection, scope), sent=sent.total(connection, scope))
    if by in {By.REASON, By.MTA, By.DOMAIN}:
        groups = _largest(connection, scope, by, limit)
        if by is By.DOMAIN:
            groups = _with_domains(connection, scope, groups)
    else:
        groups = _few(connection, scope, by)[:limit]
    return Report(by, groups, total, _dispositions(connection, scope), letters.of(connection, scope))


def by_reason(connection: sa.Connection, run_id: int) -> list[Group]:
    """Return what bounced of one run by reason, the most frequent first."""
    key = bounce.c.category
    query = (
        sa.select(key.label("key"), *_counts())
        .where(bounce.c.run_id == run_id, _is(Kind.BOUNCE))
        .group_by(key)
    )
    return _sorted(_group(row) for row in connection.execute(query))


def of_run(connection: sa.Connection, run_id: int) -> Group:
    """Return what came back for one run, all together."""
    return _group(connection.execute(sa.select(*_counts()).where(bounce.c.run_id == run_id)).one())


def _total(connection: sa.Connection, scope: sent.Scope) -> Group:
    return _group(connection.execute(sa.select(*_counts()).where(*_within(scope))).one())


def _largest(connection: sa.Connection, scope: sent.Scope, by: By, limit: int | None) -> list[Group]:
    """Return the groups of a kind that there may be many of."""
    keys: dict[By, Any] = {By.REASON: bounce.c.category, By.DOMAIN: bounce.c.domain_id, By.MTA: _mta()}
    failures = sa.func.count(sa.case((_is(Kind.BOUNCE), 1)))
    query = (
        sa.select(keys[by].label("key"), *_counts())
        .where(*_within(scope), _is(Kind.BOUNCE) if by is By.REASON else sa.true())
        .group_by(sa.text("key"))
        .having(failures > 0)
        .order_by(failures.desc(), sa.text("key"))
        .limit(limit)
    )
    return [_group(row) for row in connection.execute(query)]


def _with_domains(connection: sa.Connection, scope: sent.Scope, groups: list[Group]) -> list[Group]:
    ids = [int(group.key) for group in groups if group.key]
    names = _pairs(connection, sa.select(domain.c.id, domain.c.name).where(domain.c.id.in_(ids)))
    counts = sent.by(connection, scope, tally.c.domain_id, only=ids)
    return [
        replace(group, key=names.get(int(group.key), ""), sent=counts.get(int(group.key)))
        if group.key
        else replace(group, key="")
        for group in groups
    ]


def _few(connection: sa.Connection, scope: sent.Scope, by: By) -> list[Group]:
    """Return the groups of a kind that there are few of; those without a bounce are among them."""
    if by is By.DAY:
        return _by_day(connection, scope)
    key = bounce.c.run_id if by is By.ACTIVITY else bounce.c.store_id
    query = sa.select(key.label("key"), *_counts()).where(*_within(scope)).group_by(key)
    of_run = _names_of_runs(connection, by)
    names = of_run if by is By.ACTIVITY else _names_of_stores(connection)
    found: dict[str, Group] = {}
    for row in connection.execute(query):
        name = names.get(row.key, "")
        found[name] = _added(found.get(name, Group(name)), _group(row))
    for run_id, count in sent.by(connection, scope, tally.c.run_id).items():
        name = of_run.get(run_id, "")
        group = found.get(name, Group(name))
        if count or name in found:
            found[name] = replace(group, sent=(group.sent or 0) + count)
    return _sorted(found.values())


def _by_day(connection: sa.Connection, scope: sent.Scope) -> list[Group]:
    day = _day(connection)
    query = sa.select(day.label("key"), *_counts()).where(*_within(scope)).group_by(day)
    found = {str(row.key): _group(row) for row in connection.execute(query)}
    for number, count in sent.by(connection, scope, tally.c.day).items():
        key = str(_EPOCH + timedelta(days=number))
        if count or key in found:
            found[key] = replace(found.get(key, Group(key)), sent=count)
    return [found[key] for key in sorted(found)]


def _names_of_runs(connection: sa.Connection, by: By) -> dict[int, str]:
    name = activity.c.name if by is By.ACTIVITY else store.c.name
    tables = run.join(activity, activity.c.id == run.c.activity_id).join(
        store, store.c.id == activity.c.store_id
    )
    return _pairs(connection, sa.select(run.c.id, name).select_from(tables))


def _names_of_stores(connection: sa.Connection) -> dict[int, str]:
    return _pairs(connection, sa.select(store.c.id, store.c.name))


def _dispositions(connection: sa.Connection, scope: sent.Scope) -> dict[str, int]:
    query = (
        sa.select(bounce.c.disposition, sa.func.count()).where(*_within(scope)).group_by(bounce.c.disposition)
    )
    found: dict[str, int] = _pairs(connection, query)
    return {disposition.value: found.get(disposition.value, 0) for disposition in Disposition}


def _within(scope: sent.Scope) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if scope.since is not None:
        conditions.append(bounce.c.at >= scope.since)
    if scope.activity_id is not None:
        conditions.append(
            bounce.c.run_id.in_(sa.select(run.c.id).where(run.c.activity_id == scope.activity_id))
        )
    return conditions


def _is(kind: Kind) -> sa.ColumnElement[bool]:
    return (bounce.c.kind == kind.value) & bounce.c.disposition.in_(COUNTED)


def _counts() -> list[sa.Label[int]]:
    failure = _is(Kind.BOUNCE)
    conditions = {
        "refused": failure & bounce.c.mail_id.is_(None),
        "reported": failure & bounce.c.mail_id.isnot(None),
        "permanent": failure & bounce.c.permanent,
        "delays": _is(Kind.DELAY),
        "successes": _is(Kind.SUCCESS),
        "complaints": _is(Kind.COMPLAINT),
        "unsubscribes": _is(Kind.UNSUBSCRIBE),
    }
    return [sa.func.count(sa.case((condition, 1))).label(name) for name, condition in conditions.items()]


def _mta() -> sa.ColumnElement[str]:
    """Return the server that said no: the remote one where the report names it, else the one that reports."""
    named = sa.func.nullif(bounce.c.remote_mta, "")
    return sa.func.coalesce(named, bounce.c.reporting_mta)


def _day(connection: sa.Connection) -> sa.ColumnElement[Any]:
    if connection.dialect.name == "postgresql":
        return sa.func.date(sa.func.timezone("UTC", bounce.c.at))
    return sa.func.date(bounce.c.at)


def _pairs(connection: sa.Connection, query: sa.Select[Any]) -> dict[Any, Any]:
    return {key: value for key, value in connection.execute(query)}  # noqa: C416 - rows are no pairs to mypy


def _group(row: Any) -> Group:
    values = row._asdict()
    key = values.pop("key", "")
    return Group("" if key is None else str(key), **values)


def _added(one: Group, other: Group) -> Group:
    return replace(one, **{name: getattr(one, name) + getattr(other, name) for name in _COUNTS})


def _sorted(groups: Iterable[Group]) -> list[Group]:
    return sorted(groups, key=lambda group: (-group.bounces, group.key))
