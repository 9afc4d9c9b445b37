"""What contributors and CI run: `nox` for all of it, `nox -l` for the list."""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "venv"

SQLALCHEMY = {"2.0": "sqlalchemy[asyncio]>=2.0,<2.1", "2.1": "sqlalchemy[asyncio]>=2.1,<2.2"}

SMOKE = """
import checkpoint_sa
from sqlalchemy import create_engine, inspect
from checkpoint_sa import SQLAlchemySaver

with SQLAlchemySaver.from_conn_string("sqlite://") as saver:
    saver.setup()
    assert "checkpoints" in inspect(saver.bind).get_table_names()
print("installed", checkpoint_sa.__file__)
"""


@nox.session
@nox.parametrize("sqlalchemy", list(SQLALCHEMY))
def tests(session: nox.Session, sqlalchemy: str) -> None:
    """Run the tests with one release line of SQLAlchemy; arguments go to pytest."""
    session.install("-e", ".[test]", SQLALCHEMY[sqlalchemy])
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and types."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
def package(session: nox.Session) -> None:
    """Build wheel and sdist, install each in an empty environment and use it from elsewhere."""
    session.install("build")
    built = session.create_tmp()
    session.run("python", "-m", "build", "--outdir", built, silent=True)
    session.install("twine")
    session.run("twine", "check", "--strict", *_built(built))
    for archive in _built(built):
        session.run("python", "-m", "pip", "uninstall", "-qy", "langgraph-checkpoint-sa")
        session.install(archive)
        with session.chdir("/"):
            session.run("python", "-c", SMOKE)


def _built(folder: str) -> list[str]:
    from pathlib import Path  # noqa: PLC0415

    return sorted(str(path) for path in Path(folder).iterdir() if "0." in path.name)
