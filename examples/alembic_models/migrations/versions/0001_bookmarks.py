"""Bookmarks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the revision."""
    op.create_table(
        "bookmarks",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("thread_id", sa.Text(), nullable=False),
        sa.Column("checkpoint_ns", sa.Text(), nullable=False),
        sa.Column("checkpoint_id", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["thread_id", "checkpoint_ns", "checkpoint_id"],
            ["checkpoints.thread_id", "checkpoints.checkpoint_ns", "checkpoints.checkpoint_id"],
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    """Take the revision back."""
    op.drop_table("bookmarks")
