"""What the configuration makes mailbound do, in words and with its numbers."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator
from datetime import timedelta

from mailbound.config import quantities
from mailbound.config.accounts import Account, Outbound, Store
from mailbound.config.sections import Breaker, Config, Guard, Inbound, Policy, Sending, Web

_WIDTH = 100
_UNITS = {"d": "day", "h": "hour", "m": "minute", "s": "second"}
_TLS = {"implicit": "TLS from the first octet", "starttls": "STARTTLS, required", "insecure": "without TLS"}


def explain(config: Config) -> str:
    """Return what `config` makes mailbound do: a heading for each part, a sentence for each behaviour."""
    parts = [(f"Store {name}", _store(store)) for name, store in config.stores.items()]
    parts += [
        ("When a run starts", _starting(config.sending)),
        ("How a delivery proceeds", _sending(config.sending)),
        ("When a run halts by itself", _breaker(config.breaker)),
        ("When bounces are held", _guard(config.guard)),
        ("What a signed report or the reply of our own relay does", _policy(config.policy)),
        (
            "What becomes of inbound mail",
            itertools.chain(_inbound(config.inbound), _quarantining(config.inbound)),
        ),
        ("How recipients unsubscribe", _unsubscribing(config.web)),
    ]
    return "\n\n".join("\n".join([heading, *map(_item, lines)]) for heading, lines in parts) + "\n"


def _item(text: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent="  - ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _store(store: Store) -> Iterator[str]:
    sender, inbox = store.inbound.address, store.inbound
    yield (
        f"Messages come from {store.name} <{store.from_ or sender}>"
        f"{f' (Sender: {sender})' if store.from_ else ''}; answers go to {store.outbound.address}."
    )
    relay = store.outbound
    yield f"They leave through the relay {_server(relay)}{_login(relay)}{_pace(relay)}."
    local_part, _, domain = sender.rpartition("@")
    path = f"{local_part}+TOKEN@{domain}" if inbox.subaddressing else sender
    proof = "whose token is signed" if inbox.subaddressing else "known again by ENVID and Message-ID alone"
    yield f"Bounces come back to {path}, {proof}."
    after = {
        "delete": "deleted there",
        "archive": f"moved into the folder {inbox.archive_folder}",
        "keep": "left there",
    }[inbox.after_storing]
    folder = f"from the folder {inbox.folder or 'INBOX'} " if inbox.protocol == "imap" else ""
    yield (
        f"They are fetched {folder}by {inbox.protocol.upper()} as {inbox.username}, with {_secret(inbox)}, from "
        f"{_server(inbox)}; what is stored is {after}."
    )


def _server(account: Account) -> str:
    return f"{account.host}:{account.port} ({_TLS[account.tls]})"


def _login(relay: Outbound) -> str:
    if not relay.username:
        return ", without a login"
    return f" as {relay.username}, with {_secret(relay)}"


def _secret(account: Account) -> str:
    return "an OAuth 2 token" if account.token_command else "a password"


def _pace(relay: Outbound) -> str:
    rate = f"{relay.rate:g} messages a second at most" if relay.rate else "as fast as it takes them"
    return f", over {_many(relay.connections, 'connection')}, {rate}"


def _starting(sending: Sending) -> Iterator[str]:
    yield f"A schedule that names no time zone means {sending.time_zone.key}."
    yield (
        f"A run that could not start within {_time(sending.grace)} of its time is missed, and asks an "
        "operator instead of going out late. A run whose predecessor still sends waits as long."
    )
    yield (
        "It goes to those in the segment who opted in for the store: by their own row for it, else by their "
        "row for all stores. No row means no, and a no for all stores wins. This is asked when the "
        "audience is frozen, and again before each message."
    )


def _sending(sending: Sending) -> Iterator[str]:
    yield (
        f"After a temporary refusal (4yz) it is tried again in {_time(sending.retry_first)}, then after "
        f"twice as long each time, up to {_time(sending.retry_longest)}. It is expired "
        f"{_time(sending.expires_after)} after its run started."
    )
    yield "When the relay cannot be reached or refuses us, the run waits; no recipient is touched."
    in_doubt = {
        "resend": "sent again with the same Message-ID, so it may arrive twice",
        "hold": "held for an operator, so it may not arrive at all",
    }
    yield f"When no reply to the final dot came, it is {in_doubt[sending.in_doubt]}."
    if sending.resend_soft:
        yield (
            f"What comes back softly is sent again after {_time(sending.resend_every)}, "
            f"{_many(sending.resend_soft, 'time')} at most, unless it expires before."
        )
    else:
        yield "What comes back, even softly, is not sent again."
    limit = f"{sending.domain_rate:g} messages a second" if sending.domain_rate else "any number of messages"
    named = ", ".join(
        f"{domain} {f'{rate:g} a second' if rate else 'any number'}"
        for domain, rate in sending.domain_rates.items()
    )
    yield f"One recipient domain gets {limit}{f'; of those that are named: {named}' if named else ''}."
    yield f"A daemon that is stopped waits up to {_time(sending.drain)} for replies to final dots."


def _breaker(breaker: Breaker) -> Iterator[str]:
    yield (
        f"When {_many(breaker.blame_count, 'refusal')} blame us (blocked, reputation, authentication, "
        f"policy) and they are {_percent(breaker.blame_share)} or more of what is settled."
    )
    yield "Then what comes back of it is held until it is resumed. A run with mass bounces halts, too."


def _guard(guard: Guard) -> Iterator[str]:
    yield (
        f"When {_many(guard.count, 'permanent bounce')} within {_time(guard.window)} are of one run, and "
        f"{_percent(guard.run_share)} or more of what it has settled: so many do not die at once."
    )
    yield (
        f"When as many have one text, or come from the hosts of one domain, and are {_percent(guard.alike_share)} or "
        "more of what their runs have settled."
    )
    yield (
        f"When as many are of one recipient domain, and {_percent(guard.domain_share)} or more of what went there. "
        "Then the run goes on."
    )
    yield (
        "What they changed already is taken back, what comes after them is held like them, and an operator releases "
        "or discards it."
    )


def _policy(policy: Policy) -> Iterator[str]:
    yield "No such user, or moved: undeliverable, and opted out (source hard_bounce), at once."
    yield (
        f"No such domain, or disabled: the same, after {_many(policy.confirm_events, 'event')} "
        f"at least {_time(policy.confirm_apart)} apart."
    )
    yield (
        f"Permanent but unclear (a bare 550, an address that is not ours): the same, after "
        f"{_many(policy.unclear_events, 'event')} on {_many(policy.unclear_events, 'day')}."
    )
    yield (
        f"The mailbox (full) or the way (network, greylisting, expiry): a soft bounce, at most one a day. "
        f"More than {policy.soft_limit} within {_time(policy.soft_window)} suspend the address for "
        f"{_time(policy.suspend_for)}."
    )
    yield (
        f"A success forgets earlier soft bounces: a report that it was delivered, or "
        f"{_time(policy.quiet_success)} without any report after the relay took it."
    )
    yield "About us (blocked, reputation) or the message (content, virus): no mark on the recipient."
    yield "A delay: noted, never counted."
    yield "A complaint: opted out of that store."
    yield "An unsubscribe, by mail or one click: opted out of that store, with all who share the address."
    yield "Anything unsigned: into quarantine, where it changes nothing until an operator accepts it."


def _inbound(inbound: Inbound) -> Iterator[str]:
    yield (
        f"A mailbox is looked at every {_time(inbound.poll).removeprefix('1 ')}; by IMAP new mail is fetched as soon "
        "as the server tells of it."
    )
    yield f"Of a mail over {quantities.write_size(inbound.largest)} only the head is fetched and read."
    yield (
        f"Raw mail that was understood is purged after {_time(inbound.keep_for)}; what was not stays until a "
        "person drops it."
    )
    yield (
        f"When {quantities.write_size(inbound.budget)} of raw mail are kept, the oldest that was understood makes "
        "room, and last what was not; if that is not enough, fetching stops and says so. Nothing is deleted unread."
    )


def _quarantining(inbound: Inbound) -> Iterator[str]:
    yield (
        f"A report that proves nothing is kept for {_time(inbound.quarantine_for)}, in case an operator accepts it. "
        f"Of over {quantities.write_size(inbound.quarantine_budget)} of such mail the oldest is dropped first."
    )


def _unsubscribing(web: Web) -> Iterator[str]:
    yield "By mail to the inbound account; each message carries the address for it."
    if web.unsubscribe_url:
        yield f"By one click (RFC 8058), through links that begin with {web.unsubscribe_url}."
    else:
        yield "Not by one click: [web] names no unsubscribe_url."


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _time(value: timedelta) -> str:
    written = quantities.write_duration(value)
    return _many(int(written[:-1]), _UNITS[written[-1]])
