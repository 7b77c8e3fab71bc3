"""How the reports look: as tables for a person, as plain values for JSON, as rows for CSV."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from mailbound.cli import bars, terminal
from mailbound.cli.bars import Bar, Styled
from mailbound.database.reports import activities
from mailbound.database.reports import domains as domain_reports
from mailbound.database.reports.activities import RunReport
from mailbound.database.reports.bounces import By, Group, Report
from mailbound.lifecycle import DeliveryState, RunState
from mailbound.model import Category, Disposition, Fault

Sheet = tuple[Sequence[str], list[list[Any]]]

_FAULTS = {
    Fault.ADDRESS: "red",
    Fault.MAILBOX: "yellow",
    Fault.SENDER: "magenta",
    Fault.MESSAGE: "blue",
    Fault.PATH: "cyan",
    Fault.UNCLEAR: "bright_black",
}
_OUTCOMES = {
    "open": "blue",
    DeliveryState.ACCEPTED: "green",
    DeliveryState.DELIVERED: "bright_green",
    DeliveryState.BOUNCED: "red",
    DeliveryState.REFUSED: "bright_red",
    DeliveryState.UNKNOWN: "magenta",
    DeliveryState.EXPIRED: "yellow",
    DeliveryState.FAILED: "magenta",
}
_RUNS = {
    RunState.SENT: "green",
    RunState.SENDING: "blue",
    RunState.HALTED: "bold red",
    RunState.FAILED: "bold red",
}
_MEANINGS = {
    "open": "still to be sent",
    DeliveryState.ACCEPTED: "the relay took it, no report since",
    DeliveryState.DELIVERED: "a report says it arrived",
    DeliveryState.BOUNCED: "a report says it failed",
    DeliveryState.REFUSED: "the relay said no",
    DeliveryState.UNKNOWN: "no reply to the final dot",
    DeliveryState.EXPIRED: "not handed over in time",
    DeliveryState.FAILED: "no message could be made",
    DeliveryState.CANCELLED: "the run was cancelled first",
    DeliveryState.SKIPPED: "not sent:",
}
_NAMELESS = {By.REASON: "(none)", By.MTA: "(not named)", By.DOMAIN: "(unknown)"}
_COUNTS = ("bounces", "permanent", "refused", "reported", "delays", "successes", "complaints", "unsubscribes")


# --- bounces ----------------------------------------------------------------------------------------------


def bounces(report: Report, *, title: str) -> None:
    """Print what bounced, group by group, and below it what else came back."""
    total = report.total
    if report.groups:
        groups = report.groups + ([report.others] if report.others else [])
        columns = [report.by.value, *_columns(report.by)]
        rows = [[_key(report.by, group), *_cells(report.by, group, total, groups)] for group in groups]
        bars.table(columns, rows, total=["all", *_cells(report.by, total, total, None)], title=title)
    else:
        bars.line(title, "bold")
        bars.line("Nothing bounced.")
    bars.line(_summary(total))
    _tell_dispositions(report.dispositions)


def _columns(by: By) -> list[str]:
    if by is By.REASON:
        return ["fault", "bounces", "permanent", "at once", "later", "share", "", "of sent"]
    rest = [] if by is By.MTA else ["complaints"]
    known = [] if by is By.MTA else ["sent"]
    return [
        *known,
        "bounces",
        "permanent",
        "at once",
        "later",
        *rest,
        "delays",
        *(["of sent", ""] if known else ["share", ""]),
    ]


def _cells(by: By, group: Group, total: Group, groups: Sequence[Group] | None) -> list[Any]:
    """Return the cells of one group; `groups` None: it is the total, which has no bar."""
    numbers = [_number(count) for count in (group.bounces, group.permanent, group.refused, group.reported)]
    part = group.bounces / total.bounces if total.bounces else 0.0
    if by is By.REASON:
        fault = _fault(group.key)
        style = _FAULTS.get(fault, "cyan") if fault else "cyan"
        drawn = Bar(part / _largest(groups, total), style) if groups is not None else ""
        of_sent = group.bounces / total.sent if total.sent else None
        return [Styled(fault or "", style), *numbers, bars.percent(part), drawn, bars.percent(of_sent)]
    if by is By.MTA:
        drawn = Bar(part / _largest(groups, total)) if groups is not None else ""
        return [*numbers, _number(group.delays), bars.percent(part), drawn]
    sent = "" if group.sent is None else _number(group.sent)
    shares = [one.share or 0.0 for one in groups or ()]
    drawn = Bar((group.share or 0.0) / (max(shares, default=0) or 1), "red") if groups is not None else ""
    return [
        sent,
        *numbers,
        _number(group.complaints),
        _number(group.delays),
        bars.percent(group.share),
        drawn,
    ]


def _largest(groups: Sequence[Group] | None, total: Group) -> float:
    """Return the largest share, so that its bar is a full one."""
    largest = max((group.bounces for group in groups or ()), default=0)
    return largest / total.bounces if largest else 1.0


def _key(by: By, group: Group) -> Any:
    return group.key or _NAMELESS.get(by, "(none)")


def _fault(key: str) -> Fault | None:
    return Category(key).fault if key in set(Category) else None


def _summary(total: Group) -> str:
    parts = [] if total.sent is None else [f"{_number(total.sent)} sent"]
    parts.append(f"{_number(total.bounces)} bounces{_of(total.bounces, total.sent)}")
    parts.append(f"{_number(total.complaints)} complaints{_of(total.complaints, total.sent)}")
    parts.append(f"{_number(total.unsubscribes)} unsubscribed")
    parts.append(f"{_number(total.delays)} delayed")
    parts.append(f"{_number(total.successes)} reported as delivered")
    return " · ".join(parts)


def _of(count: int, sent: int | None) -> str:
    return f" ({bars.percent(count / sent)})" if sent and count else ""


def _tell_dispositions(found: dict[str, int]) -> None:
    if held := found[Disposition.HELD]:
        bars.line(f"{_number(held)} held: their runs are halted, and an operator decides", "yellow")
    if quarantined := found[Disposition.QUARANTINED]:
        text = f"{_number(quarantined)} quarantined and not counted: nothing shows that they are genuine"
        bars.line(f"{text} (mailbound bounce quarantine)", "yellow")
    if undone := found[Disposition.UNDONE]:
        bars.line(f"{_number(undone)} undone and not counted", "bright_black")


def bounces_as_json(report: Report) -> dict[str, Any]:
    """Return the report as plain values."""
    groups = [_group(report.by, group, report.total) for group in report.groups]
    others = report.others
    return {
        "by": report.by,
        "groups": groups,
        "others": _group(report.by, others, report.total) if others else None,
        "total": {
            name: value
            for name, value in _group(report.by, report.total, report.total).items()
            if name != report.by
        },
        "dispositions": report.dispositions,
    }


def bounces_as_sheet(report: Report) -> Sheet:
    """Return the head and the rows of the report."""
    rows = [_group(report.by, group, report.total) for group in report.groups]
    columns = list(_group(report.by, Group(""), report.total))
    return columns, [list(row.values()) for row in rows]


def _group(by: By, group: Group, total: Group) -> dict[str, Any]:
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


# --- activity ---------------------------------------------------------------------------------------------


def activity(report: activities.Report, now: datetime) -> None:
    """Print each run of an activity, the latest first."""
    if not report.runs:
        bars.line(f"Activity {report.activity.name} has no run yet.")
    for number, one in enumerate(report.runs):
        if number:
            bars.line("")
        _run(one, now)
    if report.earlier:
        bars.line(f"\n{report.earlier} earlier runs are not shown (--limit).".strip(), "bright_black")


def _run(report: RunReport, now: datetime) -> None:
    run = report.run
    style = _RUNS.get(run.state, "yellow")
    bars.line(
        f"{run.activity}, run {run.id}, due {terminal.cell(run.occurrence_at)}: {run.state}", f"bold {style}"
    )
    if run.note:
        bars.line(run.note, style)
    bars.line(_course(report, now))
    _tell_states(report)
    if report.reasons:
        groups, total = report.reasons, report.returned
        rows = [[_key(By.REASON, group), *_cells(By.REASON, group, total, groups)[:-1]] for group in groups]
        bars.table(["bounced for", *_columns(By.REASON)[:-1]], rows)
    _tell_returned(report)


def _course(report: RunReport, now: datetime) -> str:
    run, duration, rate = report.run, report.duration(now), report.rate(now)
    if run.started_at is None or duration is None:
        return "It did not start."
    end = f"to {terminal.cell(run.finished_at)}" if run.finished_at else "and still on"
    pace = f" · {rate:,.1f} messages/s" if rate is not None and report.sent else ""
    return f"from {terminal.cell(run.started_at)} {end} · {span(duration)}{pace}"


def span(duration: timedelta) -> str:
    """Return a duration as a person reads it: its two largest units."""
    seconds = duration.total_seconds()
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [
        f"{value} {unit}"
        for value, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s"))
        if value
    ]
    return " ".join(parts[:2])


def _tell_states(report: RunReport) -> None:
    audience = report.audience
    rows: list[list[Any]] = []
    for outcome, count in report.outcomes.items():
        if not count:
            continue
        style = _OUTCOMES.get(outcome, "bright_black")
        share = count / audience if audience else 0.0
        meaning = Styled(_MEANINGS[outcome], "bright_black")
        rows.append([Styled(outcome, style), _number(count), bars.percent(share), Bar(share, style), meaning])
        if outcome == DeliveryState.SKIPPED:
            rows.extend(_skipped(report))
    total = ["audience", _number(audience), "", "", "the sum of the states" if report.proven else ""]
    bars.table(["state", "recipients", "share", "", ""], rows, total=total)
    if not report.proven:
        bars.line("The tally and the skipped deliveries differ: run `mailbound doctor`.", "bold red")


def _skipped(report: RunReport) -> list[list[Any]]:
    return [
        ["", "", "", "", Styled(f"{count:>9,}  {reason or '(no reason)'}", "bright_black")]
        for reason, count in report.skipped.items()
    ]


def _tell_returned(report: RunReport) -> None:
    back = report.returned
    parts = [
        f"{_number(report.sent)} sent",
        f"{_number(back.bounces)} bounces{_of(back.bounces, report.sent)}",
        f"{_number(back.complaints)} complaints{_of(back.complaints, report.sent)}",
        f"{_number(report.unsubscribed)} unsubscribed",
        f"{_number(back.delays)} delayed",
    ]
    bars.line(" · ".join(parts))


def activity_as_json(report: activities.Report, now: datetime) -> dict[str, Any]:
    """Return the report as plain values."""
    return {
        "activity": report.activity.name,
        "activity_id": report.activity.id,
        "store": report.activity.store,
        "runs": [_run_as_json(one, now) for one in report.runs],
        "earlier_runs": report.earlier,
    }


def _run_as_json(report: RunReport, now: datetime) -> dict[str, Any]:
    duration = report.duration(now)
    total = report.returned
    return {
        "run_id": report.run.id,
        "occurrence_at": report.run.occurrence_at,
        "state": report.run.state,
        "note": report.run.note,
        "started_at": report.run.started_at,
        "finished_at": report.run.finished_at,
        "duration_seconds": duration.total_seconds() if duration is not None else None,
        "messages_per_second": report.rate(now),
        "audience": report.audience,
        "sent": report.sent,
        "outcomes": report.outcomes,
        "skipped": report.skipped,
        "bounces": [
            {
                name: value
                for name, value in _group(By.REASON, group, total).items()
                if name not in {"sent", "share"}
            }
            for group in report.reasons
        ],
        "complaints": total.complaints,
        "unsubscribes": report.unsubscribed,
        "delays": total.delays,
    }


def activity_as_sheet(report: activities.Report) -> Sheet:
    """Return one row for each run."""
    columns = [
        "activity",
        "run",
        "due",
        "state",
        "started",
        "finished",
        "audience",
        "sent",
        *activities.OUTCOMES,
    ]
    columns += ["complaints", "unsubscribes"]
    rows: list[list[Any]] = []
    for one in report.runs:
        run = one.run
        head = [run.activity, run.id, run.occurrence_at, run.state, run.started_at, run.finished_at]
        rows.append(
            [*head, one.audience, one.sent, *one.outcomes.values(), one.returned.complaints, one.unsubscribed]
        )
    return columns, rows


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
