"""How the accounts of a store are opened: its relay and its mailbox."""

from __future__ import annotations

import functools

from mailbound import access_token, mailbox, relay
from mailbound.config import Config, Store
from mailbound.mailbox import opening


def account(store: Store) -> relay.Account:
    """Return how to open a session with a store's relay."""
    outbound = store.outbound
    return relay.Account(
        host=outbound.host,
        port=outbound.port,
        tls=outbound.tls,
        username=outbound.username or "",
        password=outbound.password.get_secret_value() if outbound.password else "",
        token=functools.partial(access_token.fresh, command) if (command := outbound.token_command) else None,
        ca_file=str(outbound.ca_file or ""),
        ehlo_name=outbound.ehlo_name or "",
    )


async def open_mailbox(store: Store, settings: Config) -> mailbox.Mailbox:
    """Return a session with a store's mailbox. Raises MailboxError."""
    return await opening.open(store.inbound, largest_octets=settings.inbound.largest)
