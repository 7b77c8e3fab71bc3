"""The first schema.

Revision 0001, after None.
"""

import sqlalchemy as sa
from alembic import op

from mailbound.database.tables import Id, Json, Utc

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration."""
    op.create_table(
        "change",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("recipient_id", Id, nullable=True),
        sa.Column("address_id", Id, nullable=True),
        sa.Column("domain_id", Id, nullable=True),
        sa.Column("store_id", sa.Integer(), nullable=True),
        sa.Column("before", sa.String(length=255), nullable=False),
        sa.Column("after", sa.String(length=255), nullable=False),
        sa.Column("cause", sa.String(length=16), nullable=False),
        sa.Column("bounce_id", Id, nullable=True),
        sa.Column("rule_version", sa.String(length=32), server_default="", nullable=False),
        sa.Column("who", sa.String(length=64), server_default="", nullable=False),
        sa.Column("undoes", Id, nullable=True),
        sa.ForeignKeyConstraint(["undoes"], ["change.id"], name=op.f("fk_change_undoes")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_change")),
    )
    op.create_index(
        "ix_change_address_id",
        "change",
        ["address_id"],
        unique=False,
        sqlite_where=sa.text("address_id IS NOT NULL"),
        postgresql_where=sa.text("address_id IS NOT NULL"),
    )
    op.create_index(
        "ix_change_bounce_id",
        "change",
        ["bounce_id"],
        unique=False,
        sqlite_where=sa.text("bounce_id IS NOT NULL"),
        postgresql_where=sa.text("bounce_id IS NOT NULL"),
    )
    op.create_index(
        "ix_change_recipient_id",
        "change",
        ["recipient_id"],
        unique=False,
        sqlite_where=sa.text("recipient_id IS NOT NULL"),
        postgresql_where=sa.text("recipient_id IS NOT NULL"),
    )
    op.create_index(
        "ix_change_undoes",
        "change",
        ["undoes"],
        unique=False,
        sqlite_where=sa.text("undoes IS NOT NULL"),
        postgresql_where=sa.text("undoes IS NOT NULL"),
    )

    op.create_table(
        "domain",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_domain")),
        sa.UniqueConstraint("name", name=op.f("uq_domain_name")),
    )
    op.create_table(
        "node",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("started_at", Utc(), nullable=False),
        sa.Column("seen_at", Utc(), nullable=False),
        sa.Column("lost_at", Utc(), nullable=True),
        sa.Column("holding", Json, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_node")),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("node_id", Id, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lease")),
    )
    op.create_table(
        "segment",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("condition", sa.Text(), nullable=True),
        sa.Column("created_at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_segment")),
        sa.UniqueConstraint("name", name=op.f("uq_segment_name")),
    )
    op.create_table(
        "store",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_store")),
        sa.UniqueConstraint("name", name=op.f("uq_store_name")),
    )
    op.create_table(
        "tally",
        sa.Column("run_id", Id, autoincrement=False, nullable=False),
        sa.Column("domain_id", Id, autoincrement=False, nullable=False),
        sa.Column("outcome", sa.String(length=10), nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("node_id", Id, autoincrement=False, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "domain_id", "outcome", "day", "node_id", name=op.f("pk_tally")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "template",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_template")),
        sa.UniqueConstraint("sha256", name=op.f("uq_template_sha256")),
    )
    op.create_table(
        "token_key",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Utc(), nullable=False),
        sa.Column("retired_at", Utc(), nullable=True),
        sa.Column("revoked_at", Utc(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token_key")),
    )
    op.create_table(
        "activity",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("store_id", sa.Integer(), nullable=False),
        sa.Column("segment_id", Id, nullable=False),
        sa.Column("template", sa.String(length=255), nullable=False),
        sa.Column("starts_at", Utc(), nullable=True),
        sa.Column("cron", sa.String(length=64), nullable=True),
        sa.Column("time_zone", sa.String(length=64), nullable=False),
        sa.Column("window", Json, nullable=True),
        sa.Column("grace_seconds", sa.Integer(), nullable=False),
        sa.Column("expires_after_seconds", sa.Integer(), nullable=False),
        sa.Column("in_doubt", sa.String(length=8), nullable=False),
        sa.Column("resend_soft", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("resend_every_seconds", sa.Integer(), server_default="86400", nullable=False),
        sa.Column("created_at", Utc(), nullable=False),
        sa.Column("planned_through", Utc(), nullable=False),
        sa.Column("ended_at", Utc(), nullable=True),
        sa.ForeignKeyConstraint(["segment_id"], ["segment.id"], name=op.f("fk_activity_segment_id")),
        sa.ForeignKeyConstraint(["store_id"], ["store.id"], name=op.f("fk_activity_store_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_activity")),
        sa.UniqueConstraint("name", name=op.f("uq_activity_name")),
    )
    op.create_table(
        "address",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("key", sa.String(length=320), nullable=False),
        sa.Column("domain_id", Id, nullable=False),
        sa.ForeignKeyConstraint(["domain_id"], ["domain.id"], name=op.f("fk_address_domain_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_address")),
        sa.UniqueConstraint("key", name=op.f("uq_address_key")),
    )
    op.create_table(
        "inbound_mail",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("store_id", sa.Integer(), nullable=False),
        sa.Column("uid", sa.String(length=255), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_octets", sa.Integer(), nullable=False),
        sa.Column("truncated", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column("fetched_at", Utc(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=True),
        sa.Column("subject", sa.String(length=255), server_default="", nullable=False),
        sa.Column("why", sa.String(length=255), server_default="", nullable=False),
        sa.Column("read_at", Utc(), nullable=True),
        sa.ForeignKeyConstraint(["store_id"], ["store.id"], name=op.f("fk_inbound_mail_store_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbound_mail")),
        sa.UniqueConstraint("store_id", "uid", "sha256", name=op.f("uq_inbound_mail_store_id_uid_sha256")),
    )
    op.create_index("ix_inbound_mail_kind", "inbound_mail", ["kind", "id"], unique=False)
    op.create_index(
        "ix_inbound_mail_new",
        "inbound_mail",
        ["id"],
        unique=False,
        sqlite_where=sa.text("state = 'new'"),
        postgresql_where=sa.text("state = 'new'"),
    )

    op.create_table(
        "opt_in",
        sa.Column("recipient_id", Id, autoincrement=False, nullable=False),
        sa.Column("store_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("receive", sa.Boolean(), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("changed_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["store_id"], ["store.id"], name=op.f("fk_opt_in_store_id")),
        sa.PrimaryKeyConstraint("recipient_id", "store_id", name=op.f("pk_opt_in")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "segment_member",
        sa.Column("segment_id", Id, autoincrement=False, nullable=False),
        sa.Column("recipient_id", Id, autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["segment_id"], ["segment.id"], name=op.f("fk_segment_member_segment_id")),
        sa.PrimaryKeyConstraint("segment_id", "recipient_id", name=op.f("pk_segment_member")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "bounce",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("mail_id", Id, nullable=True),
        sa.Column("store_id", sa.Integer(), nullable=True),
        sa.Column("run_id", Id, nullable=True),
        sa.Column("delivery_id", Id, nullable=True),
        sa.Column("attempt", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("recipient_id", Id, nullable=True),
        sa.Column("address_id", Id, nullable=True),
        sa.Column("domain_id", Id, nullable=True),
        sa.Column("address", sa.String(length=320), nullable=False),
        sa.Column("evidence", sa.String(length=8), nullable=False),
        sa.Column("carriers", sa.String(length=40), server_default="", nullable=False),
        sa.Column("action", sa.String(length=12), nullable=False),
        sa.Column("status", sa.String(length=11), server_default="", nullable=False),
        sa.Column("status_class", sa.SmallInteger(), nullable=False),
        sa.Column("diagnostic", sa.String(length=1024), server_default="", nullable=False),
        sa.Column("reporting_mta", sa.String(length=255), server_default="", nullable=False),
        sa.Column("remote_mta", sa.String(length=255), server_default="", nullable=False),
        sa.Column("category", sa.String(length=24), server_default="", nullable=False),
        sa.Column("permanent", sa.Boolean(), nullable=False),
        sa.Column("rule", sa.String(length=64), server_default="", nullable=False),
        sa.Column("rule_version", sa.String(length=32), server_default="", nullable=False),
        sa.Column("disposition", sa.String(length=12), nullable=False),
        sa.Column("why", sa.String(length=255), server_default="", nullable=False),
        sa.Column("gist", sa.String(length=160), server_default="", nullable=False),
        sa.Column("hold_id", Id, nullable=True),
        sa.ForeignKeyConstraint(["mail_id"], ["inbound_mail.id"], name=op.f("fk_bounce_mail_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bounce")),
        sa.UniqueConstraint(
            "delivery_id", "attempt", "recipient_id", "action", "status_class", name="uq_bounce_effect"
        ),
    )
    op.create_index("ix_bounce_address", "bounce", ["address_id", "at"], unique=False)
    op.create_index("ix_bounce_at", "bounce", ["at"], unique=False)
    op.create_index(op.f("ix_bounce_mail_id"), "bounce", ["mail_id"], unique=False)
    op.create_index("ix_bounce_recipient", "bounce", ["recipient_id", "at"], unique=False)
    op.create_index("ix_bounce_run", "bounce", ["run_id", "category"], unique=False)
    op.create_index(
        "ix_bounce_waiting",
        "bounce",
        ["disposition", "id"],
        unique=False,
        sqlite_where=sa.text("disposition IN ('held', 'quarantined')"),
        postgresql_where=sa.text("disposition IN ('held', 'quarantined')"),
    )
    op.create_index(
        "ix_bounce_hold",
        "bounce",
        ["hold_id"],
        unique=False,
        sqlite_where=sa.text("hold_id IS NOT NULL"),
        postgresql_where=sa.text("hold_id IS NOT NULL"),
    )
    op.create_table(
        "hold",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("store_id", sa.Integer(), nullable=False),
        sa.Column("trait", sa.String(length=8), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("why", sa.String(length=255), nullable=False),
        sa.Column("opened_at", Utc(), nullable=False),
        sa.Column("settled_at", Utc(), nullable=True),
        sa.Column("who", sa.String(length=64), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["store_id"], ["store.id"], name=op.f("fk_hold_store_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hold")),
    )
    op.create_index(
        "uq_hold_open",
        "hold",
        ["store_id", "trait", "subject"],
        unique=True,
        sqlite_where=sa.text("settled_at IS NULL"),
        postgresql_where=sa.text("settled_at IS NULL"),
    )

    op.create_table(
        "inbound_raw",
        sa.Column("mail_id", Id, autoincrement=False, nullable=False),
        sa.Column("pack_id", Id, nullable=False),
        sa.Column("begin", sa.Integer(), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["mail_id"], ["inbound_mail.id"], name=op.f("fk_inbound_raw_mail_id")),
        sa.PrimaryKeyConstraint("mail_id", name=op.f("pk_inbound_raw")),
    )
    op.create_table(
        "inbound_pack",
        sa.Column("id", Id, autoincrement=False, nullable=False),
        sa.Column("last_mail_id", Id, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbound_pack")),
    )
    op.create_table(
        "recipient",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("external_id", sa.String(length=255), nullable=False),
        sa.Column("address_id", Id, nullable=False),
        sa.Column("address", sa.String(length=320), nullable=False),
        sa.Column("name", sa.String(length=255), server_default="", nullable=False),
        sa.Column("locale", sa.String(length=35), server_default="", nullable=False),
        sa.Column("time_zone", sa.String(length=64), server_default="", nullable=False),
        sa.Column("attributes", Json, nullable=False),
        sa.Column("created_at", Utc(), nullable=False),
        sa.Column("changed_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["address_id"], ["address.id"], name=op.f("fk_recipient_address_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recipient")),
        sa.UniqueConstraint("external_id", name=op.f("uq_recipient_external_id")),
    )
    op.create_index(op.f("ix_recipient_address_id"), "recipient", ["address_id"], unique=False)

    op.create_table(
        "recipient_status",
        sa.Column("address_id", Id, autoincrement=False, nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("category", sa.String(length=24), server_default="", nullable=False),
        sa.Column("since", Utc(), nullable=False),
        sa.Column("until", Utc(), nullable=True),
        sa.Column("bounce_id", Id, nullable=True),
        sa.ForeignKeyConstraint(["address_id"], ["address.id"], name=op.f("fk_recipient_status_address_id")),
        sa.PrimaryKeyConstraint("address_id", name=op.f("pk_recipient_status")),
    )
    op.create_table(
        "run",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("activity_id", Id, nullable=False),
        sa.Column("occurrence_at", Utc(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("note", sa.String(length=255), server_default="", nullable=False),
        sa.Column("template_id", Id, nullable=True),
        sa.Column("frozen_through", Id, server_default="0", nullable=False),
        sa.Column("frozen_at", Utc(), nullable=True),
        sa.Column("key_id", sa.SmallInteger(), nullable=True),
        sa.Column("day", sa.Integer(), nullable=True),
        sa.Column("started_at", Utc(), nullable=True),
        sa.Column("finished_at", Utc(), nullable=True),
        sa.Column("expires_at", Utc(), nullable=True),
        sa.Column("pardoned_through", Id, server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["activity_id"], ["activity.id"], name=op.f("fk_run_activity_id")),
        sa.ForeignKeyConstraint(["template_id"], ["template.id"], name=op.f("fk_run_template_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
        sa.UniqueConstraint("activity_id", "occurrence_at", name=op.f("uq_run_activity_id_occurrence_at")),
    )
    op.create_index(
        "ix_run_open",
        "run",
        ["state"],
        unique=False,
        sqlite_where=sa.text("state IN ('scheduled', 'sending', 'paused', 'halted')"),
        postgresql_where=sa.text("state IN ('scheduled', 'sending', 'paused', 'halted')"),
    )

    op.create_table(
        "suppression",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("address_id", Id, nullable=True),
        sa.Column("address_hash", sa.String(length=64), nullable=True),
        sa.Column("domain_id", Id, nullable=True),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("until", Utc(), nullable=True),
        sa.Column("created_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["address_id"], ["address.id"], name=op.f("fk_suppression_address_id")),
        sa.ForeignKeyConstraint(["domain_id"], ["domain.id"], name=op.f("fk_suppression_domain_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_suppression")),
        sa.UniqueConstraint("address_hash", name=op.f("uq_suppression_address_hash")),
        sa.UniqueConstraint("address_id", name=op.f("uq_suppression_address_id")),
        sa.UniqueConstraint("domain_id", name=op.f("uq_suppression_domain_id")),
    )
    op.create_table(
        "delivery",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("run_id", Id, nullable=False),
        sa.Column("recipient_id", Id, nullable=False),
        sa.Column("address_id", Id, nullable=False),
        sa.Column("domain_id", Id, nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("attempt", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", Utc(), nullable=True),
        sa.Column("node_id", Id, nullable=True),
        sa.Column("reason", sa.String(length=24), nullable=True),
        sa.Column("status", sa.String(length=11), nullable=True),
        sa.Column("reply", sa.String(length=512), nullable=True),
        sa.Column("marked_at", Utc(), nullable=True),
        sa.Column("settled_at", Utc(), nullable=True),
        sa.ForeignKeyConstraint(["address_id"], ["address.id"], name=op.f("fk_delivery_address_id")),
        sa.ForeignKeyConstraint(["domain_id"], ["domain.id"], name=op.f("fk_delivery_domain_id")),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_delivery_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery")),
        sa.UniqueConstraint("recipient_id", "run_id", name=op.f("uq_delivery_recipient_id_run_id")),
    )
    op.create_index(
        "ix_delivery_exceptional",
        "delivery",
        ["run_id", "state", "id"],
        unique=False,
        sqlite_where=sa.text("state NOT IN ('queued', 'claimed', 'sending', 'accepted', 'delivered')"),
        postgresql_where=sa.text("state NOT IN ('queued', 'claimed', 'sending', 'accepted', 'delivered')"),
    )
    op.create_index(
        "ix_delivery_node",
        "delivery",
        ["node_id"],
        unique=False,
        sqlite_where=sa.text("node_id IS NOT NULL"),
        postgresql_where=sa.text("node_id IS NOT NULL"),
    )
    op.create_index(
        "ix_delivery_paced",
        "delivery",
        ["reason", "run_id", "next_attempt_at", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'queued' AND reason = 'paced'"),
        postgresql_where=sa.text("state = 'queued' AND reason = 'paced'"),
    )
    op.create_index(
        "ix_delivery_queued",
        "delivery",
        ["run_id", "next_attempt_at", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_delivery_resend",
        "delivery",
        ["next_attempt_at"],
        unique=False,
        sqlite_where=sa.text("state = 'bounced' AND next_attempt_at IS NOT NULL"),
        postgresql_where=sa.text("state = 'bounced' AND next_attempt_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Take this migration back."""
    op.drop_index(
        "ix_delivery_resend",
        table_name="delivery",
        sqlite_where=sa.text("state = 'bounced' AND next_attempt_at IS NOT NULL"),
        postgresql_where=sa.text("state = 'bounced' AND next_attempt_at IS NOT NULL"),
    )
    op.drop_index(
        "ix_delivery_queued",
        table_name="delivery",
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.drop_index(
        "ix_delivery_paced",
        table_name="delivery",
        sqlite_where=sa.text("state = 'queued' AND reason = 'paced'"),
        postgresql_where=sa.text("state = 'queued' AND reason = 'paced'"),
    )
    op.drop_index(
        "ix_delivery_node",
        table_name="delivery",
        sqlite_where=sa.text("node_id IS NOT NULL"),
        postgresql_where=sa.text("node_id IS NOT NULL"),
    )
    op.drop_index(
        "ix_delivery_exceptional",
        table_name="delivery",
        sqlite_where=sa.text("state NOT IN ('queued', 'claimed', 'sending', 'accepted', 'delivered')"),
        postgresql_where=sa.text("state NOT IN ('queued', 'claimed', 'sending', 'accepted', 'delivered')"),
    )

    op.drop_table("delivery")
    op.drop_table("suppression")
    op.drop_index(
        "ix_run_open",
        table_name="run",
        sqlite_where=sa.text("state IN ('scheduled', 'sending', 'paused', 'halted')"),
        postgresql_where=sa.text("state IN ('scheduled', 'sending', 'paused', 'halted')"),
    )

    op.drop_table("run")
    op.drop_table("recipient_status")
    op.drop_index(op.f("ix_recipient_address_id"), table_name="recipient")

    op.drop_table("recipient")
    op.drop_table("inbound_pack")
    op.drop_table("inbound_raw")
    op.drop_index(
        "uq_hold_open",
        table_name="hold",
        sqlite_where=sa.text("settled_at IS NULL"),
        postgresql_where=sa.text("settled_at IS NULL"),
    )

    op.drop_table("hold")
    op.drop_index(
        "ix_bounce_hold",
        table_name="bounce",
        sqlite_where=sa.text("hold_id IS NOT NULL"),
        postgresql_where=sa.text("hold_id IS NOT NULL"),
    )
    op.drop_index(
        "ix_bounce_waiting",
        table_name="bounce",
        sqlite_where=sa.text("disposition IN ('held', 'quarantined')"),
        postgresql_where=sa.text("disposition IN ('held', 'quarantined')"),
    )
    op.drop_index("ix_bounce_run", table_name="bounce")
    op.drop_index("ix_bounce_recipient", table_name="bounce")
    op.drop_index(op.f("ix_bounce_mail_id"), table_name="bounce")
    op.drop_index("ix_bounce_at", table_name="bounce")
    op.drop_index("ix_bounce_address", table_name="bounce")

    op.drop_table("bounce")
    op.drop_table("segment_member")
    op.drop_table("opt_in")
    op.drop_index(
        "ix_inbound_mail_new",
        table_name="inbound_mail",
        sqlite_where=sa.text("state = 'new'"),
        postgresql_where=sa.text("state = 'new'"),
    )
    op.drop_index("ix_inbound_mail_kind", table_name="inbound_mail")

    op.drop_table("inbound_mail")
    op.drop_table("address")
    op.drop_table("activity")
    op.drop_table("token_key")
    op.drop_table("template")
    op.drop_table("tally")
    op.drop_table("store")
    op.drop_table("segment")
    op.drop_table("lease")
    op.drop_table("node")
    op.drop_table("domain")
    op.drop_index(
        "ix_change_undoes",
        table_name="change",
        sqlite_where=sa.text("undoes IS NOT NULL"),
        postgresql_where=sa.text("undoes IS NOT NULL"),
    )
    op.drop_index(
        "ix_change_recipient_id",
        table_name="change",
        sqlite_where=sa.text("recipient_id IS NOT NULL"),
        postgresql_where=sa.text("recipient_id IS NOT NULL"),
    )
    op.drop_index(
        "ix_change_bounce_id",
        table_name="change",
        sqlite_where=sa.text("bounce_id IS NOT NULL"),
        postgresql_where=sa.text("bounce_id IS NOT NULL"),
    )
    op.drop_index(
        "ix_change_address_id",
        table_name="change",
        sqlite_where=sa.text("address_id IS NOT NULL"),
        postgresql_where=sa.text("address_id IS NOT NULL"),
    )

    op.drop_table("change")
