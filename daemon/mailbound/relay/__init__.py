"""The relay of a store: sessions, and mail transactions on them.

aiosmtplib opens a session (TLS, EHLO, AUTH). Then our own protocol runs the transactions on its transport,
for there every reply must meet the command that it answers: a reply that shifts by one blames one recipient
for another.

    account = relay.Account(host="smtp.example.com", port=465, tls="implicit", username="shop", password="…")
    source = relay.Relay(account)
    session = await source.connect()             # waits while the relay is down
    outcome = await session.transact(letter, mark)
    source.report(session, outcome)
    await session.quit()
"""

from mailbound.relay.account import Account, Deadlines
from mailbound.relay.commands import Extensions
from mailbound.relay.failures import AuthRefused, SessionError, TlsFailed, Unreachable
from mailbound.relay.opening import open  # noqa: A004 - read as `relay.open`
from mailbound.relay.relay import Relay
from mailbound.relay.session import Session
from mailbound.relay.transaction import Carrier, Mark

__all__ = (
    "Account",
    "AuthRefused",
    "Carrier",
    "Deadlines",
    "Extensions",
    "Mark",
    "Relay",
    "Session",
    "SessionError",
    "TlsFailed",
    "Unreachable",
    "open",
)
