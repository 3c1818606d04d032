"""The first schema."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic.operations import Operations


def upgrade(op: Operations) -> None:
    op.create_table(
        "facts",
        sa.Column("leaf", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=True),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("cause_id", sa.Text(), nullable=True),
        sa.Column("event_us", sa.BigInteger(), nullable=False),
        sa.Column("recorded_us", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("leaf"),
        sa.UniqueConstraint("event_id", "topic"),
    )
    op.create_index("facts_by_cause", "facts", ["cause_id"], unique=False)
    op.create_index("facts_by_number", "facts", ["subject", "topic", "number"], unique=False)
    op.create_index("facts_by_run", "facts", ["run_id"], unique=False)
    op.create_index("facts_in_order", "facts", ["subject", "leaf"], unique=False)
    op.create_table(
        "log_checkpoints",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("size"),
    )
    op.create_table(
        "log_duplicates",
        sa.Column("leaf", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("leaf"),
    )
    identity = op.create_table(
        "log_identity", sa.Column("origin", sa.Text(), nullable=False), sa.PrimaryKeyConstraint("origin")
    )
    # The log's name is made with it and stays, whatever store it is restored into.
    op.bulk_insert(identity, [{"origin": f"evenkeel/governance/{uuid.uuid4().hex}"}])
    op.create_table(
        "log_segments",
        sa.Column("first", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprints", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("first"),
    )
    op.create_table(
        "log_tiles",
        sa.Column("level", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("level", "number"),
    )
