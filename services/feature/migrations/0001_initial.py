"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations


def upgrade(op: Operations) -> None:
    op.create_table(
        "chunks",
        sa.Column("chunk", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("first_label_us", sa.BigInteger(), nullable=False),
        sa.Column("first_event_us", sa.BigInteger(), nullable=False),
        sa.Column("last_event_us", sa.BigInteger(), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chunk"),
    )
    op.create_index(op.f("ix_chunks_model"), "chunks", ["model"], unique=False)
    op.create_table(
        "commits",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("view_version", sa.Text(), nullable=False),
        sa.Column("declaration", sa.BigInteger(), nullable=False),
        sa.Column("features", sa.LargeBinary(), nullable=False),
        sa.Column("overwrite", sa.Boolean(), nullable=False),
        sa.Column("added", sa.BigInteger(), nullable=False),
        sa.Column("added_first_us", sa.BigInteger(), nullable=True),
        sa.Column("added_last_us", sa.BigInteger(), nullable=True),
        sa.Column("first_event_us", sa.BigInteger(), nullable=False),
        sa.Column("last_event_us", sa.BigInteger(), nullable=False),
        sa.Column("cut_us", sa.BigInteger(), nullable=False),
        sa.Column("kept_from_us", sa.BigInteger(), nullable=True),
        sa.Column("offsets", sa.LargeBinary(), nullable=False),
        sa.Column("cause_id", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.Column("rows", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("model", "sequence"),
    )
    op.create_table(
        "entities",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("model", "entity"),
    )
    op.create_table(
        "erased",
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("stream", "subject"),
    )
    op.create_table(
        "journal",
        sa.Column("row", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("records", sa.Integer(), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.Column("progress", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("row"),
    )
    op.create_table(
        "models",
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("offset"),
    )
    op.create_table(
        "progress",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("row", sa.BigInteger(), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "streams",
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("offset"),
    )
    op.create_table(
        "views",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("declaration", sa.BigInteger(), nullable=False),
        sa.Column("cut_us", sa.BigInteger(), nullable=False),
        sa.Column("staged", sa.BigInteger(), nullable=False),
        sa.Column("overwrite", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("model"),
    )
    op.create_table(
        "waiting",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("model", "event_id"),
    )
