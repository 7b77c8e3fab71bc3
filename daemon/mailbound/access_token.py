"""OAuth 2 access tokens, as a command of the operator's prints them: how one is got is between it and the provider."""

from __future__ import annotations

import asyncio
import contextlib

from mailbound.errors import InputError

_SECONDS = 30.0
_WORDS = 200  # of what a command says that fails


async def fresh(command: tuple[str, ...]) -> str:
    """Return what `command` prints. Raises InputError, or OSError if it cannot be run.

    The command may keep its token until it expires; it is asked before each login.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, complaint = await asyncio.wait_for(process.communicate(), _SECONDS)
    except TimeoutError:
        raise InputError(f"{command[0]} takes longer than {_SECONDS:g} seconds") from None
    finally:
        if process.returncode is None:  # too late, or nobody waits any longer
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        said = " ".join(complaint.decode("utf-8", "replace").split())[:_WORDS]
        raise InputError(f"{command[0]} ended with {process.returncode}: {said or 'it said nothing'}")
    token = output.decode("ascii", "replace").strip()
    if not token or not token.isprintable() or " " in token:
        raise InputError(f"{command[0]} printed {'no token' if token else 'nothing'}")
    return token
