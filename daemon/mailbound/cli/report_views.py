"""How the reports look: as tables for a person, as plain values for JSON, as rows for CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mailbound.cli import bars, terminal
from mailbound.cli.bars import Bar, Styled
from mailbound.database.reports import domains as domain_reports
from mailbound.database.reports.bounces import By, Group, Report
from mailbound.database.reports.letters import Letters
from mailbound.model import Category, Disposition, Fault

Column = tuple[str, Callable[[Group], Any]]
Sheet = tuple[Sequence[str], list[list[Any]]]

_FAULTS = {
    Fault.ADDRESS: "red",
    Fault.MAILBOX: "yellow",
    Fault.SENDER: "magenta",
    Fault.MESSAGE: "blue",
    Fault.PATH: "cyan",
    Fault.UNCLEAR: "bright_black",
}
_NAMELESS = {By.REASON: "(none)", By.MTA: "(not named)", By.DOMAIN: "(unknown)"}
_COUNTS = ("bounces", "permanent", "refused", "reported", "delays", "successes", "complaints", "unsubscribes")


# --- bounces ----------------------------------------------------------------------------------------------


def bounces(report: Report, *, title: str) -> None:
    """Print what bounced, group by group, and below it what else came back."""
    if report.groups:
        groups = report.groups + ([report.others] if report.others else [])
        _table(_columns(report.by, report.groups, report.total), groups, report.total, title=title)
    else:
        bars.line(title, "bold")
        bars.line("Nothing bounced.")
    bars.line(_summary(report.total))
    _tell_dispositions(report.dispositions)
    if report.letters is not None:
        _tell_letters(report.letters)


def reasons(groups: Sequence[Group], total: Group) -> None:
    """Print the reasons for which the mail of one run bounced."""
    _table([column for column in _columns(By.REASON, groups, total) if column[0] != "of sent"], groups, total)


def _table(columns: Sequence[Column], groups: Sequence[Group], total: Group, *, title: str = "") -> None:
    rows = [[cell(group) for _, cell in columns] for group in groups]
    own = [name in {"fault", ""} for name, _ in columns]  # a total has neither
    summed = ["" if is_own else cell(total) for is_own, (_, cell) in zip(own, columns, strict=True)]
    bars.table(
        [name for name, _ in columns],
        rows,
        total=["all", *summed[1:]],
        title=title,
        spare=[name for name in ("reported", "permanent", "complaints", "fault") if name in dict(columns)],
    )


def _columns(by: By, groups: Sequence[Group], total: Group) -> list[Column]:
    """Return the columns that say something about groups of this kind."""
    counted = by not in {By.REASON, By.MTA}  # there is something sent for each group
    columns: list[Column] = [(by.value, lambda group: group.key or _NAMELESS.get(by, "(none)"))]
    if by is By.REASON:
        columns.append(("fault", lambda group: Styled(_fault(group.key) or "", _style(group.key))))
    if counted and total.sent is not None:
        columns.append(("sent", lambda group: "" if group.sent is None else _number(group.sent)))
    names = ["bounces", "permanent", "refused", "reported"]
    names += [*(["complaints"] if counted else []), *(["delays"] if by is not By.REASON else [])]
    columns += [(name, _count(name)) for name in names]
    if counted and total.sent is not None:
        return columns + _measure("of sent", groups, lambda group: group.share, lambda _: "red")
    style = _style if by is By.REASON else lambda _: "cyan"
    columns += _measure("share", groups, lambda group: group.bounces / (total.bounces or 1), style)
    if by is By.REASON and total.sent:
        sent = total.sent
        columns.append(("of sent", lambda group: bars.percent(group.bounces / sent)))
    return columns


def _count(name: str) -> Callable[[Group], str]:
    return lambda group: _number(getattr(group, name))


def _measure(
    name: str,
    groups: Sequence[Group],
    share: Callable[[Group], float | None],
    style: Callable[[str], str],
) -> list[Column]:
    """Return a column for a share and one for its bar; the largest of `groups` has the longest bar."""
    largest = max((share(group) or 0.0 for group in groups), default=0.0) or 1.0
    return [
        (name, lambda group: bars.percent(share(group))),
        ("", lambda group: Bar((share(group) or 0.0) / largest, style(group.key)) if group in groups else ""),
    ]


def _style(key: str) -> str:
    fault = _fault(key)
    return _FAULTS[fault] if fault else "cyan"


def _fault(key: str) -> Fault | None:
    return Category(key).fault if key in set(Category) else None


def _summary(total: Group) -> str:
    parts = [] if total.sent is None else [f"{_number(total.sent)} sent"]
    parts.append(f"{terminal.counted(total.bounces, 'bounce')}{of(total.bounces, total.sent)}")
    if total.complaints:
        parts.append(f"{terminal.counted(total.complaints, 'complaint')}{of(total.complaints, total.sent)}")
    if total.unsubscribes:
        parts.append(f"{_number(total.unsubscribes)} unsubscribed")
    others = {"delay": total.delays, "arrival": total.successes}
    parts += [terminal.counted(count, noun) for noun, count in others.items() if count]
    return " · ".join(parts)


def of(count: int, sent: int | None) -> str:
    """Return a count's share of what was sent, in brackets; "" where there is none."""
    return f" ({bars.percent(count / sent)})" if sent and count else ""


def _tell_dispositions(found: dict[str, int]) -> None:
    if held := found[Disposition.HELD]:
        bars.line(f"{_number(held)} held until an operator decides (mailbound bounce held)", "yellow")
    if quarantined := found[Disposition.QUARANTINED]:
        text = f"{_number(quarantined)} quarantined and not counted: nothing shows that they are genuine"
        bars.line(f"{text} (mailbound bounce quarantine)", "yellow")
    if undone := found[Disposition.UNDONE]:
        bars.line(f"{_number(undone)} undone and not counted", "bright_black")


def _tell_letters(letters: Letters) -> None:
    """Tell what a person has to read."""
    if letters.wishes:
        what = terminal.counted(letters.wishes, "wish", "wishes")
        bars.line(
            f"{what} to unsubscribe without a token of ours (mailbound bounce quarantine --wishes)", "yellow"
        )
    if letters.ordinary:
        bars.line(
            f"{terminal.counted(letters.ordinary, 'mail')} by people (mailbound bounce list --kind ordinary)"
        )
    if letters.unrecognised:
        what = terminal.counted(letters.unrecognised, "mail")
        bars.line(f"{what} not understood (mailbound bounce list --kind unrecognised)", "yellow")


def bounces_as_json(report: Report) -> dict[str, Any]:
    """Return the report as plain values."""
    groups = [plain(report.by, group, report.total) for group in report.groups]
    others = report.others
    return {
        "by": report.by,
        "groups": groups,
        "others": plain(report.by, others, report.total) if others else None,
        "total": {
            name: value
            for name, value in plain(report.by, report.total, report.total).items()
            if name != report.by
        },
        "dispositions": report.dispositions,
        "letters": report.letters,
    }


def bounces_as_sheet(report: Report) -> Sheet:
    """Return the head and the rows of the report."""
    rows = [plain(report.by, group, report.total) for group in report.groups]
    columns = list(plain(report.by, Group(""), report.total))
    return columns, [list(row.values()) for row in rows]


def plain(by: By, group: Group, total: Group) -> dict[str, Any]:
    """Return a group as plain values; `total` tells what its share is of, and is told whole itself."""
    counts = _COUNTS[:4] if by is By.REASON else _COUNTS
    if by is By.REASON and group is total:
        counts = _COUNTS
    sent = total.sent if by is By.REASON else group.sent
    share = group.bounces / sent if sent else None
    fault = {"fault": _fault(group.key)} if by is By.REASON and group is not total else {}
    return {
        by.value: group.key,
        **fault,
        **{name: getattr(group, name) for name in counts},
        "sent": sent,
        "share": share,
    }


# --- domains ----------------------------------------------------------------------------------------------

_DOMAIN_COUNTS = ("sent", "accepted", "refused", "bounced", "unknown")


def domains(report: domain_reports.Report, *, title: str) -> None:
    """Print the domains with what failed at each as a bar."""
    if not report.domains:
        bars.line(title, "bold")
        bars.line("Nothing was sent.")
        return
    largest = max(one.share or 0.0 for one in report.domains) or 1.0
    rows = [[*_domain(one), Bar((one.share or 0.0) / largest, "red")] for one in report.domains]
    total = [*_domain(report.total), ""]
    total[0] = f"all {_number(report.count)}" if report.count > len(report.domains) else "all"
    bars.table(["domain", *_DOMAIN_COUNTS, "failed", ""], rows, total=total, title=title)


def _domain(one: domain_reports.Domain) -> list[Any]:
    return [one.name, *(_number(getattr(one, name)) for name in _DOMAIN_COUNTS), bars.percent(one.share)]


def domains_as_json(report: domain_reports.Report) -> dict[str, Any]:
    """Return the report as plain values."""
    columns, rows = domains_as_sheet(report)
    total = {name: getattr(report.total, name) for name in (*_DOMAIN_COUNTS, "share")}
    return {
        "domains": [dict(zip(columns, row, strict=True)) for row in rows],
        "total": total,
        "count": report.count,
    }


def domains_as_sheet(report: domain_reports.Report) -> Sheet:
    """Return one row for each domain."""
    names = ("name", *_DOMAIN_COUNTS, "share")
    return ["domain", *names[1:]], [[getattr(one, name) for name in names] for one in report.domains]


def _number(count: int) -> str:
    return terminal.number(count)
