"""`delete_for_runs` in tables of more and more checkpoints: it follows what it deletes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from measure import Samples
from peers import open_pair
from sqlalchemy import text

if TYPE_CHECKING:
    from peers import Servers

TITLE = "Deleting runs"
ABOUT = (
    "`delete_for_runs` of a run of ten checkpoints with a value each, among so many checkpoints of "
    "other runs, a hundred to a thread."
)
ENGINES = ("pg-psycopg",)
SIZES = (125_000, 250_000, 500_000, 1_000_000)
ROUNDS = 20

# A row of each table for each number, as `put` makes them.
FILL_CHECKPOINTS = """
INSERT INTO checkpoints (
    thread_id, checkpoint_ns, checkpoint_id, checkpoint, metadata, run_id
)
SELECT 'thread ' || n / 100, '', lpad(CAST(n AS TEXT), 12, '0'),
       jsonb_build_object(
           'v', 4, 'channel_versions', jsonb_build_object('x', CAST(n AS TEXT))
       ),
       '{}',
       'run ' || n / 10
FROM generate_series(CAST(:first AS INTEGER), CAST(:last AS INTEGER)) n
"""
FILL_BLOBS = """
INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
SELECT 'thread ' || n / 100, '', 'x', CAST(n AS TEXT), 'null', ''
FROM generate_series(CAST(:first AS INTEGER), CAST(:last AS INTEGER)) n
"""


async def run(servers: Servers, kind: str, *, quick: bool) -> list[dict[str, Any]]:
    """Fill the tables to each size, then delete some runs."""
    rows = []
    async with open_pair(servers, kind) as pair:
        saver = pair.sides["ours"].saver
        filled = 0
        for size in (1_000, 2_000) if quick else SIZES:
            with saver.bind.begin() as connection:
                for statement in (FILL_CHECKPOINTS, FILL_BLOBS):
                    connection.execute(text(statement), {"first": filled, "last": size - 1})
            filled = size
            with saver.bind.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM ANALYZE"))
            samples = Samples()
            for number in range(ROUNDS):
                run_id = f"run {(size // 10 - 1) - number}"
                await samples.time(
                    "ours", "delete_for_runs", pair.sides["ours"].do("delete_for_runs", [run_id])
                )
            rows.append({"checkpoints": size, **samples.row("delete_for_runs")})
    return rows
