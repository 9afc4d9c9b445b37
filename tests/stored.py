"""Write an SQLite database at each of our revisions into tests/schema, for upgrades to be tried on.

    python tests/stored.py

Files that are there stay: they are what releases wrote.
"""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

from stores import KINDS, Store

from checkpoint_sa import migrate


def main() -> None:
    """Write the database that is missing: that of the head."""
    file = Path(__file__).parent / "schema" / f"stored_{migrate.HEAD}.sql"
    if file.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "stored.db"
        store = Store(KINDS["sqlite"], f"sqlite+pysqlite:///{database}")
        store.setup()
        first = store.save("stored", {"large": ["ü", 0]}, metadata={"run_id": "run"})
        last = store.save(parent=first, values={"large": ["ü", 1], "small": "x"})
        store.put_writes(last, [("large", {"a": None})], "task", "path")
        store.close()
        connection = sqlite3.connect(database)
        file.write_text("\n".join(connection.iterdump()) + "\n")
        connection.close()


if __name__ == "__main__":
    main()
