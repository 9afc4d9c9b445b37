"""The commands that delete: what they print, and that they ask."""

from __future__ import annotations

import io
import json

import pytest
from sqlalchemy import make_url
from stores import Store, thread
from test_deleting import line

from checkpoint_sa.cli import main

DONE, DATA, USAGE, DATABASE = range(4)

Captured = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    """A standard input at which somebody sits."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def piped(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "SCHEMA"):
        monkeypatch.delenv(f"CHECKPOINT_SA_{name}", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())


@pytest.fixture
def filled(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Two threads of four checkpoints each; the second one is Ann's, of two runs."""
    line(sqlite_store, 4)
    line(sqlite_store, 2, "u", metadata={"user_id": "ann", "run_id": "r1", "level": 7})
    line(sqlite_store, 2, "u", metadata={"user_id": "ann", "run_id": "r2"})
    monkeypatch.setenv("CHECKPOINT_SA_URL", sqlite_store.url)
    return sqlite_store


def test_prune_on_every_driver(store: Store, capsys: Captured) -> None:
    line(store, 4)
    given = ["--url", store.url, "--all", "--keep", "2"]
    assert main(["prune", *given, "--dry-run"]) == DONE
    assert store.rows() == (4, 5, 4)
    assert main(["prune", *given, "--yes"]) == DONE
    assert store.rows() == (2, 3, 2)
    assert main(["delete", "--url", store.url, "t", "--yes"]) == DONE
    assert main(["vacuum-orphans", "--url", store.url, "--yes"]) == DONE
    assert capsys.readouterr().out.splitlines() == [
        "2 checkpoints, 2 values, 2 writes of 1 thread (8 B) would be deleted",
        "2 checkpoints, 2 values, 2 writes of 1 thread (8 B) deleted",
        "2 checkpoints, 3 values, 2 writes of 1 thread (15 B) deleted",
        "0 checkpoints, 0 values, 0 writes of 0 threads (0 B) deleted",
    ]
    assert store.rows() == (0, 0, 0)


@pytest.mark.parametrize(
    ("command", "left"),
    [
        ("prune --all --keep-latest", (1, 1)),
        ("prune --all --keep 3", (3, 3)),
        ("prune t --keep-latest", (1, 4)),
        ("prune --all --older-than 1d", (4, 4)),
        ("prune --all --older-than 0s", (1, 1)),
        ("prune --all --older-than 0s --keep 2", (2, 2)),
        ("prune --all --idle-for 90d", (4, 4)),
        ("prune u --idle-for 0s", (4, 0)),
        ("delete t u", (0, 0)),
        ("delete nobody", (4, 4)),
        ("delete --where user_id=ann", (4, 0)),
        ('delete --where level="7"', (4, 4)),
        ("delete --where level=7", (4, 0)),
        ("delete --where user_id=ann --where level=8", (4, 4)),
        ("delete --run r1", (4, 2)),
        ("vacuum-orphans --older-than 2w", (4, 4)),
    ],
)
def test_what_a_command_leaves(filled: Store, command: str, left: tuple[int, int]) -> None:
    assert main([*command.split(), "--dry-run"]) == DONE
    assert filled.rows()[0] == 8
    assert main([*command.split(), "--yes"]) == DONE
    assert (len(filled.list(thread("t"))), len(filled.list(thread("u")))) == left


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("prune --all --yes", "No rule for the checkpoints to delete"),
        ("prune --keep 2 --yes", "Pass either the ids of threads, or --all"),
        ("prune t --all --keep 2 --yes", "Pass either the ids of threads, or --all"),
        ("delete --yes", "Pass one of these"),
        ("delete t --run r1 --yes", "Pass one of these"),
        ("delete --where a=1 --where a=2 --yes", "has a name twice"),
        ("prune t --keep-latest", "Add --yes"),
        ("delete t", "Add --yes"),
        ("vacuum-orphans", "Add --yes"),
    ],
)
def test_a_command_that_is_not_clear_is_refused(
    filled: Store, capsys: Captured, command: str, message: str
) -> None:
    assert main(command.split()) == USAGE
    assert message in capsys.readouterr().err
    assert filled.rows()[0] == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("prune --all --older-than 30", "isn't an age"),
        ("prune --all --older-than 30y", "isn't an age"),
        ("prune --all --keep 0", "isn't a number from 1 on"),
        ("prune --all --keep 2 --keep-latest", "not allowed with"),
        ("delete --where ann", "isn't NAME=VALUE"),
        ("delete --where =ann", "isn't NAME=VALUE"),
    ],
)
def test_a_wrong_argument_says_what_is_right(
    capsys: Captured, arguments: str, message: str
) -> None:
    with pytest.raises(SystemExit) as error:
        main(arguments.split())
    assert error.value.code == USAGE
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "left"), [("y", 2), ("Yes", 2), ("n", 8), ("", 8), ("?", 8)])
def test_it_asks_at_a_terminal(
    filled: Store, capsys: Captured, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
    assert main(["prune", "--all", "--keep-latest"]) == DONE
    said = capsys.readouterr()
    assert "Delete 6 checkpoints, 7 values, 6 writes of 2 threads" in said.err
    assert ("Nothing was deleted." in said.err) is (left == 8)
    assert said.out.endswith("deleted\n") is (left == 2)
    assert filled.rows()[0] == left


def test_it_does_not_ask_about_nothing(
    filled: Store, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(""))
    assert main(["delete", "nobody"]) == DONE
    assert capsys.readouterr().err == "There is no thread 'nobody'.\n"


@pytest.mark.parametrize("option", ["--yes", "--dry-run"])
def test_delete_names_the_threads_that_are_not_there(
    filled: Store, capsys: Captured, option: str
) -> None:
    assert main(["delete", "nobody", "t", "nobody", "x\x1b", option]) == DONE
    said = capsys.readouterr()
    assert said.out.startswith("4 checkpoints")
    assert said.err == "There is no thread 'nobody'.\nThere is no thread 'x\\x1b'.\n"
    assert main(["delete", "--run", "none", option]) == DONE
    assert capsys.readouterr().err == "There is no checkpoint of this run.\n"
    assert main(["delete", "--where", "user_id=none", option]) == DONE
    assert capsys.readouterr().err == "There is no checkpoint of this metadata.\n"


def test_the_question_names_the_database_without_a_password(
    store: Store, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    line(store, 2)
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert main(["delete", "t", "--url", store.url]) == DONE
    said = capsys.readouterr().err
    url = make_url(store.url)
    assert f" from {url.drivername}://" in said
    assert f"/{url.database}? [y/N]" in said
    if url.password:
        assert f":{url.password}@" not in said


def test_json(filled: Store, capsys: Captured) -> None:
    for command in ("--dry-run", "--yes"):
        assert main(["delete", "t", command, "--json"]) == DONE
    found = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    expected = {"threads": 1, "checkpoints": 4, "values": 5, "writes": 4, "bytes": 23}
    assert found == [{**expected, "dry_run": True}, {**expected, "dry_run": False}]
