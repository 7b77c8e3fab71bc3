"""Which commands there are. Each module is imported only when its command is looked at."""

from __future__ import annotations

import typer

from mailbound.cli import (
    activity,
    bounce,
    config,
    database,
    demo,
    doctor,
    logs,
    recipient,
    replaying,
    report,
    run,
    segment,
    simulate,
    template,
)


def add_to(app: typer.Typer) -> None:
    """Add all commands, in the order in which a newcomer meets them."""
    app.command("demo")(demo.demo)
    app.command("run")(run.run)
    app.command("simulate")(simulate.simulate)
    app.add_typer(config.app, name="config")
    app.add_typer(recipient.app, name="recipient")
    app.add_typer(segment.app, name="segment")
    app.add_typer(template.app, name="template")
    app.add_typer(activity.app, name="activity")
    bounce.app.command("replay")(replaying.replay)
    bounce.app.command("undo")(replaying.undo)
    app.add_typer(bounce.app, name="bounce")
    app.add_typer(report.app, name="report")
    app.command("logs")(logs.logs)
    app.command("doctor")(doctor.doctor)
    app.add_typer(database.app, name="database")
