"""How the report of an activity looks: run by run, its audience as the sum of the states, and what came back."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from mailbound.cli import bars, report_views, terminal
from mailbound.cli.bars import Bar, Styled
from mailbound.cli.report_views import Sheet
from mailbound.database.reports import activities
from mailbound.database.reports.activities import RunReport
from mailbound.database.reports.bounces import By
from mailbound.lifecycle import DeliveryState, RunState

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
    RunState.HALTED: "red",
    RunState.FAILED: "red",
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
    DeliveryState.SKIPPED: "not sent, and why",
}


def show(report: activities.Report, now: datetime) -> None:
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
        report_views.reasons(report.reasons, report.returned)
    _tell_returned(report)


def _course(report: RunReport, now: datetime) -> str:
    run, duration, rate = report.run, report.duration(now), report.rate(now)
    if run.started_at is None or duration is None:
        return "It did not start."
    end = f"to {terminal.cell(run.finished_at)}" if run.finished_at else "and still on"
    end += ", and on again" if run.reopened else ""
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
        rows.append(
            [Styled(outcome, style), terminal.number(count), bars.percent(share), Bar(share, style), meaning]
        )
        if outcome == DeliveryState.SKIPPED:
            rows.extend(_skipped(report))
    total = ["audience", terminal.number(audience), "", "", "the sum of the states" if report.proven else ""]
    bars.table(["state", "recipients", "share", "", ""], rows, total=total)
    if report.outcomes.get(DeliveryState.UNKNOWN):
        bars.line(f"`mailbound activity in-doubt {report.run.activity}` lists what is unknown.", "magenta")
    if not report.proven:
        bars.line("The tally and the skipped deliveries differ: run `mailbound doctor`.", "bold red")


def _skipped(report: RunReport) -> list[list[Any]]:
    """Return a row for each reason, set in under the state that they are part of."""
    rows: list[list[Any]] = []
    for reason, count in report.skipped.items():
        cells = (
            f"  {reason or '(no reason)'}",
            terminal.number(count),
            bars.percent(count / report.audience),
        )
        rows.append([*(Styled(cell, "bright_black") for cell in cells), "", ""])
    return rows


def _tell_returned(report: RunReport) -> None:
    back = report.returned
    parts = [
        f"{terminal.number(report.sent)} sent",
        f"{terminal.counted(back.bounces, 'bounce')}{report_views.of(back.bounces, report.sent)}",
        f"{terminal.counted(back.complaints, 'complaint')}{report_views.of(back.complaints, report.sent)}",
        f"{terminal.number(report.unsubscribed)} unsubscribed",
        terminal.counted(back.delays, "delay"),
    ]
    bars.line(" · ".join(parts))


def as_json(report: activities.Report, now: datetime) -> dict[str, Any]:
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
                for name, value in report_views.plain(By.REASON, group, total).items()
                if name not in {"sent", "share"}
            }
            for group in report.reasons
        ],
        "complaints": total.complaints,
        "unsubscribes": report.unsubscribed,
        "delays": total.delays,
    }


def as_sheet(report: activities.Report) -> Sheet:
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
