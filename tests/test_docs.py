"""The code of README.md and docs/ runs, and its commands are commands.

A page's Python blocks run as one program, in order; CHECKPOINT_SA_URL, where they read it, names an
empty PostgreSQL database. One that shows a part of a file that is run
elsewhere says so, by `<!-- part of path -->` before it, and is compared with the file. One with
`<!-- for pytest -->` is a file of tests. One that can't run by itself says why, by
`<!-- not run: reason -->`.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import warnings
from contextlib import contextmanager, nullcontext
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.store.base import BaseStore
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

import checkpoint_sa
from checkpoint_sa import cli
from checkpoint_sa.engine import engines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import Server

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
PYTHON = re.compile(
    r"(?:<!-- (not run: [^>]+|for pytest|part of ([^>]+)) -->\n+)?^```python\n(.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
# In a fenced block, in an indented one after a prompt or not, in a crontab.
COMMAND = re.compile(r"^(?: {4}(?:[\d* ]+ )?)?(?:\$ )?checkpoint-sa (.+)$", re.MULTILINE)

PROGRAMS = {
    page: "\n".join(code for mark, _, code in PYTHON.findall(text) if not mark)
    for page, text in PAGES.items()
}
TESTS = [
    (page, code)
    for page, text in PAGES.items()
    for mark, _, code in PYTHON.findall(text)
    if mark == "for pytest"
]
PARTS = [
    (page, path, code)
    for page, text in PAGES.items()
    for _, path, code in PYTHON.findall(text)
    if path
]
COMMANDS = [(page, command) for page, text in PAGES.items() for command in COMMAND.findall(text)]


@pytest.mark.parametrize("page", [page for page, program in PROGRAMS.items() if program])
def test_python_of_a_page_runs(
    page: str, tmp_path: Path, start_server: Callable[[str], Server]
) -> None:
    needs_a_server = 'os.environ["CHECKPOINT_SA_URL"]' in PROGRAMS[page]
    with private_database(start_server) if needs_a_server else nullcontext("") as url:
        done = run(PROGRAMS[page], tmp_path, url)
    assert done.returncode == 0, f"{page}: {done.stderr}"


@contextmanager
def private_database(start_server: Callable[[str], Server]) -> Iterator[str]:
    url = make_url(start_server("postgresql").url("postgresql+psycopg"))
    name = f"docs_{os.getpid()}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        yield url.set(database=name).render_as_string(hide_password=False)
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


def run(program: str, folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-"],
        check=False,
        cwd=folder,
        env={**os.environ, "CHECKPOINT_SA_URL": url},
        input=program,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(("page", "code"), TESTS)
def test_tests_of_a_page_pass(page: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "test_page.py").write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist"]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, f"{page}: {done.stdout}"


@pytest.mark.parametrize(("page", "path", "code"), PARTS)
def test_part_of_a_file_is_as_in_the_file(page: str, path: str, code: str) -> None:
    assert f"\n{code}" in (ROOT / path).read_text(encoding="utf-8"), f"{page} differs from {path}"


def test_the_configuration_of_the_server_is_that_of_the_example() -> None:
    page = PAGES["docs/langgraph_server.md"]
    example = ROOT / "examples" / "langgraph_server" / "langgraph.json"
    assert f"```json\n{example.read_text(encoding='utf-8')}```" in page


@pytest.mark.parametrize("key", ["checkpointer", "store"])
def test_the_server_can_open_what_the_configuration_names(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As langgraph-api does: the file is a module, its function makes an async context."""
    folder = ROOT / "examples" / "langgraph_server"
    file, _, name = json.loads((folder / "langgraph.json").read_text())[key]["path"].partition(":")
    make = runpy.run_path(str(folder / file))[name]
    monkeypatch.setenv("CHECKPOINT_SA_URL", f"sqlite:///{tmp_path / 'server.db'}")

    async def use() -> None:
        async with make() as made:
            await made.setup()
            if key == "checkpointer":
                assert isinstance(made, BaseCheckpointSaver)
                assert await made.aget_tuple({"configurable": {"thread_id": "1"}}) is None
            else:
                assert isinstance(made, BaseStore)
                await made.aput(("n",), "k", {"a": 1})
                assert [item.key for item in await made.asearch(())] == ["k"]

    asyncio.run(use())


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_commands_are_commands(page: str, command: str) -> None:
    words = takewhile(lambda word: word not in {"|", ">"}, shlex.split(command, comments=True))
    cli.parser().parse_args(list(words))


LINES = re.findall(r"`([^`\n]+)`(?= \|)", PAGES["docs/from_langgraph.md"])


@pytest.mark.parametrize("line", dict.fromkeys(LINES))
def test_old_and_new_lines_are_python(line: str) -> None:
    """Old imports are imports of the installed packages."""
    code = ast.parse(f"async def main():\n    {line}").body[0]
    assert isinstance(code, ast.AsyncFunctionDef)
    for statement in code.body:
        if isinstance(statement, ast.ImportFrom):
            module = importlib.import_module(str(statement.module))
            with warnings.catch_warnings(category=DeprecationWarning, action="ignore"):
                assert all(hasattr(module, alias.name) for alias in statement.names)


URLS = re.findall(r"`(\w[\w+]*://[^`\s]*/[^`\s]+)`", PAGES["README.md"])


@pytest.mark.parametrize("url", dict.fromkeys(URLS))
def test_a_url_of_the_readme_works_in_every_snippet(url: str) -> None:
    is_async = engines.is_async(url)
    if not is_async:
        create_engine(url).dispose()
        engines.make_engine(url).dispose()
    if is_async or "+psycopg:" in url:
        create_async_engine(url).sync_engine.dispose()
        engines.make_async_engine(url).sync_engine.dispose()


def test_the_figures_of_the_readme_are_the_measured_ones() -> None:
    text = PAGES["README.md"]
    row = r"^\| pg-psycopg-async \| 20 \| 2 \| 16 \| (\d+) \| (\d+) \|"
    ((ours, peers),) = re.findall(row, PAGES["docs/benchmarks.md"], re.MULTILINE)
    assert f"[{ours} cycles/s]" in text
    assert f"{peers} cycles/s |" in text
    chat = PAGES["docs/incremental.md"].partition("## Figures")[2].partition("![")[0]
    row = r"^\| ([\w ]+) \| [\d.]+ \| ([\d.]+) \|"
    size = {name: float(mb) for name, mb in re.findall(row, chat, re.MULTILINE)}
    assert f"[{size['postgresql incremental']:.1f} MB]" in text
    assert f"{size['postgresql peer']:.0f} MB (`-postgres`)" in text
    assert f"{size['sqlite peer']:.0f} MB (`-sqlite`)" in text


def test_the_comparison_of_the_first_page_is_that_of_the_readme() -> None:
    comparison = PAGES["README.md"].partition("## Why\n\n")[2].partition("\n\n")[0]
    assert "| databases |" in comparison
    assert comparison.replace("](docs/", "](") in PAGES["docs/index.md"]


def test_a_second_process_continues_the_conversation_of_the_first_page(tmp_path: Path) -> None:
    program = PROGRAMS["docs/index.md"]
    assert [run(program, tmp_path, "").stdout for _ in range(2)] == ["4\n", "8\n"]


MEMBERS = re.findall(
    r"^::: checkpoint_sa\.(\w+)\n {4}options:\n {6}members:\n((?: {8}- \w+\n)+)",
    PAGES["docs/api.md"],
    re.MULTILINE,
)


@pytest.mark.parametrize(("name", "members"), MEMBERS)
def test_the_reference_has_every_method(name: str, members: str) -> None:
    """Of an async class, the async methods: the others are those of the sync class."""
    cls = getattr(checkpoint_sa, name)
    own = [base for base in cls.__mro__ if base.__module__.startswith("checkpoint_sa")]
    attributes = {key: value for base in own for key, value in vars(base).items()}
    documented = {key for key, value in attributes.items() if key[0] != "_" and value.__doc__}
    documented -= {key for key, value in attributes.items() if isinstance(value, str | bool)}
    twins = {key for key in documented if f"a{key}" in documented}
    asyncs = {f"a{key}" for key in twins}
    shown = set(members.split()) - {"-"}
    if name.startswith("Async"):
        assert asyncs <= shown
        assert {"from_conn_string", "setup"} <= shown <= documented
    else:
        assert shown == documented - asyncs


def test_the_reference_has_every_public_name() -> None:
    page = PAGES["docs/api.md"]
    modules = {"checkpoint_sa.errors", "checkpoint_sa.models"}
    for name in checkpoint_sa.__all__:
        home = getattr(getattr(checkpoint_sa, name), "__module__", "")
        is_shown = f"::: checkpoint_sa.{name}\n" in page
        assert is_shown or home in modules or name == "metadata", name


@pytest.mark.parametrize("page", list(PAGES))
def test_links_to_files_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", PAGES[page]):
        assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


def test_blocks_and_commands_are_found() -> None:
    assert {"README.md", "docs/index.md", "docs/cli.md"} <= {page for page, _ in COMMANDS}
    assert all(PROGRAMS[page] for page in ("README.md", "docs/index.md", "docs/cli.md"))


def test_the_summary_of_the_benchmarks_is_that_of_the_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    report = importlib.import_module("report")
    figures = json.loads((ROOT / "docs" / "benchmarks.json").read_text(encoding="utf-8"))
    summary = report.table(report.summary(figures))
    assert summary in PAGES["docs/benchmarks.md"].partition("## Method")[0]


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        ({"peer/ours": 1.2, "95 %": "1.01-1.40"}, "**ahead** 1.20"),
        ({"peer/ours": 1.2, "95 %": "0.99-1.40"}, "equal 1.20"),
        ({"peer/ours": 0.8, "95 %": "0.70-0.99"}, "**behind** 0.80"),
        ({"ours/peer": 1.06}, "**ahead** 1.06"),
        ({"ours/peer": 1.04}, "equal 1.04"),
        ({}, "no peer"),
    ],
)
def test_a_verdict_follows_the_interval(
    row: dict[str, object], verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    report = importlib.import_module("report")
    rows = [{"operation": "list"}, {"operation": "put", **row}]
    assert report.verdict(rows, {"operation": "put"}) == verdict
    assert not report.verdict(rows, {"operation": "get_tuple"})
