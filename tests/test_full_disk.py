"""A full disk is an error that leaves everything as it was; once there is room, work goes on."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import SERVERS, found_or_skipped
from sqlalchemy.exc import DBAPIError, OperationalError
from stores import KINDS, Store
from test_faults import ids, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from langchain_core.runnables import RunnableConfig
    from servers import Server

LIBRARY = Path(__file__).with_name("full_disk.c")
GROWING = {"postgresql": "/base/", "mariadb": ".ibd", "mysql": ".ibd"}
"""Part of the paths of the files of each server's tables."""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="checkpoint-sa-full-disk-"))
    made.chmod(0o755)  # a server may have an account of its own
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def start(folder: Path) -> Iterator[Callable[[str], Server]]:
    """Start a server whose tables can't grow while there is a file that has its name."""
    if shutil.which("cc") is None:
        found_or_skipped("The full disk", "no C compiler")
    library = folder / "full_disk.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, LIBRARY, "-ldl"], check=True)
    running: dict[str, Server] = {}

    def start(name: str) -> Server:
        if name not in running:
            server = found_or_skipped(name, SERVERS[name].find())
            server.environment = {
                "LD_PRELOAD": str(library),
                "FULL_DISK": str(folder / name),
                "FULL_DISK_FILES": GROWING[name],
            }
            running[name] = server.start()
        return running[name]

    yield start
    for server in running.values():
        server.stop()


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.server])
def test_a_full_disk_of_a_server(start: Callable[[str], Server], folder: Path, name: str) -> None:
    kind = KINDS[name]
    server = start(kind.server)
    if server.variable in os.environ:
        pytest.skip("the disk of a server that runs already can't be filled")
    with closing(Store(kind, server.url(kind.driver))) as store:
        fill_and_free(store, folder / kind.server)


def fill_and_free(store: Store, full: Path) -> None:
    store.setup()
    store.clear()
    put(store, "1")
    full.touch()
    # With values of 500 kB MariaDB 10.11 gives up itself ("Out of disk space in rollback").
    acknowledged: list[RunnableConfig] = []
    saves = (store.save(f"t{number}", {"x": os.urandom(5_000)}) for number in itertools.count())
    try:
        with pytest.raises(DBAPIError, match=r"No space left|is full") as caught:
            acknowledged.extend(saves)  # till the room in the files is used up
        assert len(str(caught.value)) < 2_000  # without the value
        # What was acknowledged is there, and nothing of what wasn't.
        assert store.rows() == (len(acknowledged) + 1, len(acknowledged) + 1, 0)
        assert store.found({"configurable": {"thread_id": "a"}}).checkpoint["id"] == "1"
    finally:
        full.unlink()
    put(store, "2", parent="1")
    assert ids(store)[-1] == "1"
    assert "2" in ids(store)
    store.save("big", {"x": os.urandom(5_000_000)})
    assert store.saver.metrics.retries == 0


def test_a_full_sqlite_file(tmp_path: Path) -> None:
    store = Store(KINDS["sqlite"], f"sqlite:///{tmp_path / 'full.db'}", pool_size=1, max_overflow=0)
    store.setup()
    put(store, "1")

    def limit(pages: int) -> None:
        with store.engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    limit(1)  # as many as there are
    with pytest.raises(OperationalError, match="full"):
        store.save("big", {"x": "y" * 100_000})
    before = store.rows()
    assert ids(store)[-1] == "1"
    limit(100_000)
    store.save("big", {"x": "y" * 10_000})
    assert store.rows() == (before[0] + 1, before[1] + 1, 0)
    store.close()
