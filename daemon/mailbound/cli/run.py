"""`mailbound run`: the daemon."""

from __future__ import annotations

import typer


def run(context: typer.Context) -> None:
    """Run the daemon: send what is due, read what bounces.

    SIGTERM stops it in good order, SIGHUP reads the configuration again.
    """
    from mailbound import service

    service.run(context.obj)
