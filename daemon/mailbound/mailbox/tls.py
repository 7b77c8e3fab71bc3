"""How a mailbox's server is trusted."""

from __future__ import annotations

import ssl
from pathlib import Path

from mailbound.mailbox import SessionError, Trouble


def context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that verifies, by what the system trusts or by `ca_file` alone. It reads files.

    Raises SessionError if the file is of no use.
    """
    try:
        made = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise SessionError(Trouble.TLS, f"{ca_file}: {error}") from error
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    return made
