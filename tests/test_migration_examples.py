"""Applications with an Alembic of their own: the example projects, on an installed package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from databases import bare_store, on_connection, sync_url
from sqlalchemy import inspect
from stores import Store, thread

from checkpoint_sa import SchemaError, migrate

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["bare_store"]

TOP = Path(__file__).parent.parent
SEVERAL_COMMANDS = """
import sys
from alembic.config import main
for arguments in sys.argv[1:]:
    main(arguments.split())
"""
AUTOGENERATE = "revision --autogenerate -m new"
CHECKPOINTS = {"checkpoints", "checkpoint_blobs", "checkpoint_writes", "checkpoint_deltas"}
OURS = {*CHECKPOINTS, "store", "store_embeddings"}

# The PostgreSQL one has what the others have, and an index that isn't in the models.
on_postgresql = pytest.mark.parametrize("bare_store", ["pg-psycopg"], indirect=True)
on_two_engines = pytest.mark.parametrize("bare_store", ["sqlite", "pg-psycopg"], indirect=True)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lay the package out as its wheel does: revisions and ini are inside."""
    site = tmp_path_factory.mktemp("site")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(TOP / "checkpoint_sa", site / "checkpoint_sa", ignore=ignore)
    shutil.copytree(TOP / "migrations", site / "checkpoint_sa" / "migrations", ignore=ignore)
    shutil.copy(TOP / "alembic.ini", site / "checkpoint_sa")
    return site


@pytest.fixture
def run(bare_store: Store, installed: Path, tmp_path: Path) -> Callable[..., str]:
    """Run a Python module or file in a copy of an example project."""

    def run(project: str, *arguments: str) -> str:
        folder = tmp_path / project
        if not folder.exists():
            shutil.copytree(TOP / "examples" / project, folder)
        result = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(installed),
                "DATABASE_URL": sync_url(bare_store),
            },
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


def tables(store: Store) -> set[str]:
    return on_connection(store, lambda connection: set(inspect(connection).get_table_names()))


def new_revision(folder: Path) -> str:
    """Return what autogenerate wrote."""
    (file,) = (f for f in folder.glob("migrations/versions/*.py") if "0001" not in f.name)
    return file.read_text()


@on_two_engines
def test_our_revisions_as_a_branch_of_the_applications(
    bare_store: Store, run: Callable[..., str], tmp_path: Path
) -> None:
    project = "alembic_branch"
    autogenerate = f"{AUTOGENERATE} --head shop@head"
    run(project, "-c", SEVERAL_COMMANDS, "upgrade heads", "check", autogenerate)
    assert tables(bare_store) == {*OURS, "orders", "alembic_version"}
    assert new_revision(tmp_path / project).count("    pass\n") == 2
    assert run(project, "shop.py") == "1 order; 2 messages\n"
    assert bare_store.found(thread("1")).metadata["step"] == 1
    assert on_connection(bare_store, migrate.current) == migrate.HEAD
    run(project, "-m", "alembic", "downgrade", "checkpoint_sa_0001")
    behind = bare_store.using(bare_store.make_saver())
    with pytest.raises(SchemaError, match="the application's `alembic upgrade heads`"):
        behind.list(None)
    run(project, "-m", "alembic", "downgrade", "checkpoint_sa@base")
    assert tables(bare_store) == {"orders", "alembic_version"}


@on_postgresql
def test_our_models_in_the_applications_metadata(
    bare_store: Store, run: Callable[..., str], tmp_path: Path
) -> None:
    project = "alembic_models"
    bare_store.setup()
    run(project, "-c", SEVERAL_COMMANDS, "upgrade head", "check", AUTOGENERATE)
    assert tables(bare_store) == {*OURS, "bookmarks", "alembic_version", migrate.VERSION_TABLE}
    assert new_revision(tmp_path / project).count("    pass\n") == 2
    assert run(project, "bookmarks.py") == "good answer at step 1\n"


@on_postgresql
def test_an_application_that_uses_neither_leaves_our_tables_alone(
    bare_store: Store, run: Callable[..., str], tmp_path: Path
) -> None:
    project = "alembic_branch"
    run(project, "-c", "")
    ini = tmp_path / project / "alembic.ini"
    ini.write_text(ini.read_text().replace("    checkpoint_sa:migrations/versions\n", ""))
    bare_store.setup()
    run(project, "-c", SEVERAL_COMMANDS, "upgrade head", "check", AUTOGENERATE)
    assert new_revision(tmp_path / project).count("    pass\n") == 2
    assert run(project, "shop.py") == "1 order; 2 messages\n"


@pytest.mark.parametrize("bare_store", ["sqlite"], indirect=True)
def test_the_packaged_ini_works_from_anywhere(bare_store: Store, run: Callable[..., str]) -> None:
    def command(*arguments: str) -> str:
        return run("alembic_models", "-m", *arguments)

    ini = command("checkpoint_sa", "ini").strip()
    assert ini.endswith("checkpoint_sa/alembic.ini")
    command("alembic", "-c", ini, f"-xurl={bare_store.url}", "upgrade", "head")
    migrate.verify(bare_store.engine)
    run("alembic_models", "-c", SEVERAL_COMMANDS, "upgrade head", "downgrade base")
    assert tables(bare_store) == {*OURS, "alembic_version", migrate.VERSION_TABLE}
