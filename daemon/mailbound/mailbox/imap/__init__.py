"""The inbound mailbox by IMAP (RFC 3501, with IDLE, UIDPLUS and MOVE where the server has them).

A session lasts: it is told of new mail at once, and looks for itself as well. Mails are named by UIDVALIDITY and
UID. What is deleted goes at once, so nothing may be deleted that is not kept; `delete` names each mail by its
UID, and never takes one that another client has marked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mailbound.mailbox.imap.session import Account, ImapMailbox

_IDLE_SECONDS = 1500.0  # 25 minutes; a server may hang up after 30 (RFC 3501 §5.4)

__all__ = ["ImapMailbox", "open"]


async def open(  # noqa: A001 - it is called as imap.open
    *,
    host: str,
    port: int,
    username: str,
    password: str,
    authentication: Literal["password", "xoauth2"] = "password",
    tls: Literal["implicit", "insecure"] = "implicit",
    ca_file: Path | None = None,
    folder: str = "INBOX",
    after_storing: Literal["delete", "archive", "keep"] = "delete",
    archive_folder: str = "",
    timeout_seconds: float = 60.0,
    max_size_octets: int = 10_485_760,
    idle_seconds: float = _IDLE_SECONDS,
) -> ImapMailbox:
    """Return a session, logged in, with the folder open. Raises SessionError.

    With `xoauth2` the password is an access token. Without a `ca_file` the authorities count that the
    system trusts. The timeout is for each reply as a whole, though a large one gets more; of a mail
    larger than the limit only the beginning is fetched. IDLE is given again after `idle_seconds`.
    """
    mailbox = ImapMailbox(
        Account(
            host=host,
            port=port,
            username=username,
            password=password,
            authentication=authentication,
            tls=tls,
            ca_file=ca_file,
            folder=folder,
            after_storing=after_storing,
            archive_folder=archive_folder,
            timeout_seconds=timeout_seconds,
            max_size_octets=max_size_octets,
            idle_seconds=idle_seconds,
        )
    )
    await mailbox.log_in()
    return mailbox
