"""A session with the mailbox of an inbound account, by the protocol and the secret that it names."""

from __future__ import annotations

from mailbound import access_token
from mailbound.config import Inbox
from mailbound.errors import InputError
from mailbound.mailbox import Mailbox, SessionError, Trouble, imap, pop3


async def open(inbox: Inbox, *, largest_octets: int) -> Mailbox:  # noqa: A001 - it is called as opening.open
    """Return a session, logged in. Raises SessionError.

    A token that is refused may just have expired: it is fetched once more, and if it is another one, tried.
    """
    if not inbox.token_command:
        password = inbox.password.get_secret_value() if inbox.password else ""
        return await _open(inbox, password, largest_octets)
    token = await _token(inbox.token_command)
    try:
        return await _open(inbox, token, largest_octets)
    except SessionError as error:
        another = await _token(inbox.token_command) if error.trouble is Trouble.CREDENTIALS else token
        if another == token:
            raise
    return await _open(inbox, another, largest_octets)


async def _open(inbox: Inbox, secret: str, largest_octets: int) -> Mailbox:
    if inbox.protocol == "pop3":
        return await pop3.open(
            host=inbox.host,
            port=inbox.port,
            tls=inbox.tls,
            ca_file=inbox.ca_file,
            username=inbox.username,
            password=secret,
            authentication="xoauth2" if inbox.token_command else "password",
            max_size_octets=largest_octets,
            keeps=inbox.after_storing == "keep",
        )
    return await imap.open(
        host=inbox.host,
        port=inbox.port,
        tls="insecure" if inbox.tls == "insecure" else "implicit",
        ca_file=inbox.ca_file,
        username=inbox.username,
        password=secret,
        authentication="xoauth2" if inbox.token_command else "password",
        folder=inbox.folder or "INBOX",
        after_storing=inbox.after_storing,
        archive_folder=inbox.archive_folder or "",
        max_size_octets=largest_octets,
    )


async def _token(command: tuple[str, ...]) -> str:
    try:
        return await access_token.fresh(command)
    except (OSError, InputError) as error:  # nothing was refused: it is tried again soon
        raise SessionError(Trouble.TEMPORARY, f"there is no access token: {error}") from error
