"""Every table. Times are UTC; a state is written only with what `lifecycle` allowed.

The ancestor of each table in WebSphere Commerce stands beside it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects import postgresql


class Utc(TypeDecorator[datetime]):
    """An aware datetime in UTC. SQLite keeps it without a zone, PostgreSQL as timestamptz."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment in UTC. A naive datetime is a bug, so it raises ValueError."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return the stored moment, aware."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_NAME = "_%(table_name)s_%(column_0_N_name)s"
_NAMES = {"ix": f"ix{_NAME}", "uq": f"uq{_NAME}", "fk": f"fk{_NAME}", "pk": "pk_%(table_name)s"}
metadata = MetaData(naming_convention=_NAMES)

# SQLite gives out row ids by itself only for a column that is exactly INTEGER.
Id = BigInteger().with_variant(Integer(), "sqlite")
Json = JSON().with_variant(postgresql.JSONB(), "postgresql")


def _partial(name: str, where: str, *columns: Any, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))


def _id() -> Column[int]:
    return Column("id", Id, primary_key=True, autoincrement=True)


store = Table(
    "store",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 0 is `*`, all stores
    Column("name", String(64), nullable=False, unique=True),
)

domain = Table("domain", metadata, _id(), Column("name", String(255), nullable=False, unique=True))

address = Table(  # ADDRESS
    "address",
    metadata,
    _id(),
    Column("key", String(320), nullable=False, unique=True),  # normalised; for comparing only
    Column("domain_id", Id, ForeignKey("domain.id"), nullable=False),
)

recipient_status = Table(  # EMLBADADDR
    "recipient_status",
    metadata,
    Column("address_id", Id, ForeignKey("address.id"), primary_key=True, autoincrement=False),
    Column("status", String(16), nullable=False),
    Column("category", String(24), nullable=False, server_default=""),
    Column("since", Utc, nullable=False),
    Column("until", Utc),
    Column("bounce_id", Id),  # what caused it, where a bounce did
)

recipient = Table(  # USERS
    "recipient",
    metadata,
    _id(),
    Column("external_id", String(255), nullable=False, unique=True),
    Column("address_id", Id, ForeignKey("address.id"), nullable=False, index=True),
    Column("address", String(320), nullable=False),  # as given, sent verbatim
    Column("name", String(255), nullable=False, server_default=""),
    Column("locale", String(35), nullable=False, server_default=""),
    Column("time_zone", String(64), nullable=False, server_default=""),
    Column("attributes", Json, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("changed_at", Utc, nullable=False),
)

opt_in = Table(  # EMLUSRRECV
    "opt_in",
    metadata,
    Column("recipient_id", Id, primary_key=True, autoincrement=False),
    Column("store_id", Integer, ForeignKey("store.id"), primary_key=True, autoincrement=False),
    Column("receive", Boolean, nullable=False),
    Column("source", String(16), nullable=False),
    Column("changed_at", Utc, nullable=False),
    sqlite_with_rowid=False,
)

change = Table(
    "change",
    metadata,
    _id(),
    Column("at", Utc, nullable=False),
    Column("kind", String(16), nullable=False),  # opt_in, status, suppression, address
    Column("recipient_id", Id),
    Column("address_id", Id),
    Column("domain_id", Id),
    Column("store_id", Integer),
    Column("before", String(255), nullable=False),
    Column("after", String(255), nullable=False),
    Column("cause", String(16), nullable=False),  # bounce, complaint, unsubscribe, import, command, time
    Column("bounce_id", Id),
    Column("rule_version", String(32), nullable=False, server_default=""),
    Column("who", String(64), nullable=False, server_default=""),
    Column("undoes", Id, ForeignKey("change.id")),
)
for _whose in ("recipient_id", "address_id", "bounce_id", "undoes"):  # most lines lack most of them
    _partial(f"ix_change_{_whose}", f"{_whose} IS NOT NULL", change.c[_whose])

suppression = Table(
    "suppression",
    metadata,
    _id(),
    Column("address_id", Id, ForeignKey("address.id"), unique=True),
    Column("address_hash", String(64), unique=True),  # keyed: what remains of an erased address
    Column("domain_id", Id, ForeignKey("domain.id"), unique=True),
    Column("reason", String(64), nullable=False),
    Column("until", Utc),
    Column("created_at", Utc, nullable=False),
)

segment = Table(
    "segment",
    metadata,
    _id(),
    Column("name", String(64), nullable=False, unique=True),
    Column("condition", Text),  # None: the members are a fixed list
    Column("created_at", Utc, nullable=False),
)

segment_member = Table(
    "segment_member",
    metadata,
    Column("segment_id", Id, ForeignKey("segment.id"), primary_key=True, autoincrement=False),
    Column("recipient_id", Id, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

template = Table(  # as a run froze it; runs with the same content share a row
    "template",
    metadata,
    _id(),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("name", String(64), nullable=False),
    Column("content", LargeBinary, nullable=False),
)

activity = Table(  # EMLPROMO
    "activity",
    metadata,
    _id(),
    Column("name", String(64), nullable=False, unique=True),
    Column("store_id", Integer, ForeignKey("store.id"), nullable=False),
    Column("segment_id", Id, ForeignKey("segment.id"), nullable=False),
    Column("template", String(255), nullable=False),  # the folder's name
    Column("starts_at", Utc),  # one date, or None with `cron`
    Column("cron", String(64)),
    Column("time_zone", String(64), nullable=False),
    Column("window", Json),  # {"days": ["mon", …], "from": "09:00", "to": "17:00", …}, or None
    Column("grace_seconds", Integer, nullable=False),
    Column("expires_after_seconds", Integer, nullable=False),
    Column("in_doubt", String(8), nullable=False),  # resend or hold
    Column("resend_soft", SmallInteger, nullable=False, server_default="0"),  # how often after a soft bounce
    Column("resend_every_seconds", Integer, nullable=False, server_default="86400"),
    Column("created_at", Utc, nullable=False),
    Column("planned_through", Utc, nullable=False),  # due times up to here have become runs
    Column("ended_at", Utc),  # cancelled, or its only run is over
)

run = Table(  # EMLMSG
    "run",
    metadata,
    _id(),
    Column("activity_id", Id, ForeignKey("activity.id"), nullable=False),
    Column("occurrence_at", Utc, nullable=False),
    Column("state", String(16), nullable=False),
    Column("note", String(255), nullable=False, server_default=""),  # why it halted, failed or was missed
    Column("template_id", Id, ForeignKey("template.id")),
    Column("frozen_through", Id, nullable=False, server_default="0"),  # recipient id
    Column("frozen_at", Utc),  # when the whole audience was frozen
    Column("key_id", SmallInteger),
    Column("day", Integer),  # as in a token
    Column("started_at", Utc),
    Column("finished_at", Utc),
    Column("expires_at", Utc),
    Column("pardoned_through", Id, nullable=False, server_default="0"),  # bounce id, for the breaker
    UniqueConstraint("activity_id", "occurrence_at"),
)
_partial("ix_run_open", "state IN ('scheduled', 'sending', 'paused', 'halted')", run.c.state)

delivery = Table(  # EMLRCPTS, EMLRPTEVTS
    "delivery",
    metadata,
    _id(),
    Column("run_id", Id, ForeignKey("run.id"), nullable=False),
    Column("recipient_id", Id, nullable=False),  # no foreign key: the counts outlive an erased person
    Column("address_id", Id, ForeignKey("address.id"), nullable=False),
    Column("domain_id", Id, ForeignKey("domain.id"), nullable=False),
    Column("state", String(10), nullable=False),
    Column("attempt", SmallInteger, nullable=False, server_default="0"),
    Column("next_attempt_at", Utc),
    Column("node_id", Id),
    Column("reason", String(24)),  # a category, or why it was skipped
    Column("status", String(11)),
    Column("reply", String(512)),
    Column("marked_at", Utc),
    Column("settled_at", Utc),
    UniqueConstraint("recipient_id", "run_id"),
)

_turn = delivery.c.run_id, delivery.c.next_attempt_at, delivery.c.id
_partial("ix_delivery_queued", "state = 'queued'", *_turn)
_partial("ix_delivery_paced", "state = 'queued' AND reason = 'paced'", delivery.c.reason, *_turn)
_partial(
    "ix_delivery_resend", "state = 'bounced' AND next_attempt_at IS NOT NULL", delivery.c.next_attempt_at
)
# A mark leaves the node as it is, and so need not touch this index.
_partial("ix_delivery_node", "node_id IS NOT NULL", delivery.c.node_id)
_partial(
    "ix_delivery_exceptional",
    "state NOT IN ('queued', 'claimed', 'sending', 'accepted', 'delivered')",
    delivery.c.run_id,
    delivery.c.state,
    delivery.c.id,
)

tally = Table(  # how many deliveries of a run stand where, as deltas by day; open states count as `open`
    "tally",
    metadata,
    Column("run_id", Id, primary_key=True, autoincrement=False),
    Column("domain_id", Id, primary_key=True, autoincrement=False),
    Column("outcome", String(10), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("node_id", Id, primary_key=True, autoincrement=False),
    Column("count", Integer, nullable=False),
    sqlite_with_rowid=False,
)

inbound_mail = Table(
    "inbound_mail",
    metadata,
    _id(),
    Column("store_id", Integer, ForeignKey("store.id"), nullable=False),
    Column("uid", String(255), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size_octets", Integer, nullable=False),
    Column("truncated", Boolean, nullable=False, server_default=text("false")),
    Column("fetched_at", Utc, nullable=False),
    Column("state", String(8), nullable=False),  # new, read, poison
    Column("attempts", SmallInteger, nullable=False, server_default="0"),
    Column("kind", String(16)),
    Column("subject", String(255), nullable=False, server_default=""),
    Column("why", String(255), nullable=False, server_default=""),
    Column("read_at", Utc),
    UniqueConstraint("store_id", "uid", "sha256"),
)
_partial("ix_inbound_mail_new", "state = 'new'", inbound_mail.c.id)
Index("ix_inbound_mail_kind", inbound_mail.c.kind, inbound_mail.c.id)

inbound_raw = Table(
    "inbound_raw",
    metadata,
    Column("mail_id", Id, ForeignKey("inbound_mail.id"), primary_key=True, autoincrement=False),
    Column(
        "pack_id", Id, nullable=False
    ),  # no foreign key: it would want an index, and each pack one look more
    Column("begin", Integer, nullable=False),  # in the pack, once it is undone
    Column("length", Integer, nullable=False),
)

inbound_pack = Table(  # what came together, compressed together
    "inbound_pack",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),  # of its first mail
    Column("last_mail_id", Id, nullable=False),
    Column("content", LargeBinary, nullable=False),  # zlib
)

bounce = Table(  # EMLBOUNCED
    "bounce",
    metadata,
    _id(),
    Column("at", Utc, nullable=False),
    Column("kind", String(16), nullable=False),  # bounce, delay, success, complaint, unsubscribe
    Column("mail_id", Id, ForeignKey("inbound_mail.id"), index=True),  # None: an SMTP reply
    Column("store_id", Integer),
    Column("run_id", Id),
    Column("delivery_id", Id),
    Column("attempt", SmallInteger, nullable=False, server_default="0"),
    Column("recipient_id", Id),
    Column("address_id", Id),
    Column("domain_id", Id),
    Column("address", String(320), nullable=False),  # the final recipient, as reported
    Column("evidence", String(8), nullable=False),
    Column("carriers", String(40), nullable=False, server_default=""),  # what brought our tokens back
    Column("action", String(12), nullable=False),
    Column("status", String(11), nullable=False, server_default=""),
    Column("status_class", SmallInteger, nullable=False),  # 2, 4 or 5
    Column("diagnostic", String(1024), nullable=False, server_default=""),
    Column("reporting_mta", String(255), nullable=False, server_default=""),
    Column("remote_mta", String(255), nullable=False, server_default=""),
    Column("category", String(24), nullable=False, server_default=""),
    Column("permanent", Boolean, nullable=False),
    Column("rule", String(64), nullable=False, server_default=""),
    Column("rule_version", String(32), nullable=False, server_default=""),
    Column("disposition", String(12), nullable=False),
    Column("why", String(255), nullable=False, server_default=""),  # the policy's sentence
    Column("gist", String(160), nullable=False, server_default=""),  # what the diagnostic says of anybody
    Column("hold_id", Id),  # of a mass bounce
    # A report counts once, however often and by whichever mailbox it comes.
    UniqueConstraint(
        "delivery_id", "attempt", "recipient_id", "action", "status_class", name="uq_bounce_effect"
    ),
    Index("ix_bounce_recipient", "recipient_id", "at"),
    Index("ix_bounce_address", "address_id", "at"),
    Index("ix_bounce_run", "run_id", "category"),
    Index("ix_bounce_at", "at"),
)
_partial("ix_bounce_waiting", "disposition IN ('held', 'quarantined')", bounce.c.disposition, bounce.c.id)
_partial("ix_bounce_hold", "hold_id IS NOT NULL", bounce.c.hold_id)

hold = Table(  # mass bounces: what comes back alike is held until an operator has looked
    "hold",
    metadata,
    _id(),
    Column("store_id", Integer, ForeignKey("store.id"), nullable=False),
    Column("trait", String(8), nullable=False),  # what they have in common: run, text, remote, domain
    Column("subject", String(255), nullable=False),
    Column("why", String(255), nullable=False),
    Column("opened_at", Utc, nullable=False),
    Column("settled_at", Utc),
    Column("who", String(64), nullable=False, server_default=""),
)
_partial("uq_hold_open", "settled_at IS NULL", hold.c.store_id, hold.c.trait, hold.c.subject, unique=True)

node = Table(
    "node",
    metadata,
    _id(),
    Column("name", String(255), nullable=False),
    Column("started_at", Utc, nullable=False),
    Column("seen_at", Utc, nullable=False),
    Column("lost_at", Utc),  # it left, or others gave it up: it may claim nothing more
    Column("holding", Json),  # what holds back each of its stores, in words
)

lease = Table(  # work that one node does for all
    "lease",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("node_id", Id, nullable=False),
)

token_key = Table(
    "token_key",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("secret", LargeBinary, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("retired_at", Utc),  # it signs no more, and still verifies
    Column("revoked_at", Utc),  # what it signed counts as forged
)
