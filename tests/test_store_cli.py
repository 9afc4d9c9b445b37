"""`checkpoint-sa store`: what it shows and deletes, on every engine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from langgraph.store.base import PutOp
from test_clean import Terminal

from checkpoint_sa.cli import DATA, DONE, USAGE, main

if TYPE_CHECKING:
    from memories import Memory

Captured = pytest.CaptureFixture[str]


def run(memory: Memory, capsys: Captured, *words: str, code: int = DONE) -> list[Any]:
    """Run a command with --json, and return the rows; of a failure the message."""
    assert main(["store", *words, "--json", "--url", memory.on.url]) == code
    said = capsys.readouterr()
    return [said.err] if code else [json.loads(line) for line in said.out.splitlines()]


@pytest.fixture
def filled(memory: Memory) -> Memory:
    memory.put(("users", "1"), "prefs", {"theme": "dark", "n": 1})
    memory.put(("users", "1", "a.b"), "k", {"n": 2}, ttl=5)
    memory.put(("users", "10"), "k", {"n": 2}, ttl=5)
    return memory


def test_ls_lists_namespaces(filled: Memory, capsys: Captured) -> None:
    names = [["users", "1"], ["users", "1", "a.b"], ["users", "10"]]
    assert run(filled, capsys, "ls") == [{"namespace": name} for name in names]
    assert run(filled, capsys, "ls", "users", "1", "--depth", "2") == [{"namespace": names[0]}]
    assert run(filled, capsys, "ls", "--limit", "2") == [{"namespace": name} for name in names[:2]]


def test_get_prints_an_item(filled: Memory, capsys: Captured) -> None:
    (row,) = run(filled, capsys, "get", "users", "1", "prefs")
    assert row["value"] == {"theme": "dark", "n": 1}
    assert main(["store", "get", "users", "1", "prefs", "--url", filled.on.url]) == DONE
    assert json.loads(capsys.readouterr().out) == {"theme": "dark", "n": 1}
    (message,) = run(filled, capsys, "get", "users", "1", "none", code=DATA)
    assert "There is no item 'none' in the namespace ('users', '1')" in message


def test_search_lists_items(filled: Memory, capsys: Captured) -> None:
    assert len(run(filled, capsys, "search")) == 3
    found = run(filled, capsys, "search", "users", "1", "--where", "n=2")
    assert [row["namespace"] for row in found] == [["users", "1", "a.b"]]
    assert len(run(filled, capsys, "search", "users", "--limit", "1")) == 1


def test_reading_postpones_no_expiry(filled: Memory, capsys: Captured) -> None:
    filled.on.sql("UPDATE store SET ttl_minutes = 50")
    run(filled, capsys, "search")
    run(filled, capsys, "get", "users", "10", "k")
    assert filled.minutes_left() == pytest.approx([5, 5], abs=1)


def test_delete_deletes_an_item_or_a_namespace(filled: Memory, capsys: Captured) -> None:
    def delete(*words: str, option: str = "--yes") -> int:
        (row,) = run(filled, capsys, "delete", *words, option)
        assert row.pop("dry_run") is (option == "--dry-run")
        return row.pop("items")  # type: ignore[no-any-return]

    (message,) = run(filled, capsys, "delete", "users", "10", "k", code=USAGE)
    assert "--yes" in message
    assert delete("users", "10", "k", option="--dry-run") == 1
    assert delete("users", "10", "k") == 1
    assert delete("users", "10", "k") == 0
    filled.batch([PutOp(("users", "1", f"{i}"), "k", {}) for i in range(20)])
    assert delete("users", "1", "--below", option="--dry-run") == 22
    assert delete("users", "1", "--below") == 22
    assert filled.search(()) == []


@pytest.mark.parametrize(("answer", "left"), [("y", 0), ("n", 3)])
def test_delete_asks_at_a_terminal(
    filled: Memory, capsys: Captured, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
    assert main(["store", "delete", "users", "--below", "--url", filled.on.url]) == DONE
    said = capsys.readouterr()
    assert "Delete 3 items from" in said.err
    assert said.out == ("" if left else "3 items deleted\n")
    assert len(filled.search(())) == left


@pytest.mark.parametrize("command", ["get", "delete"])
def test_a_key_without_a_namespace_is_refused(
    filled: Memory, capsys: Captured, command: str
) -> None:
    options = [] if command == "get" else ["--yes"]
    (message,) = run(filled, capsys, command, "users", *options, code=USAGE)
    assert "Only one name is given, 'users'" in message


def test_stats_counts(filled: Memory, capsys: Captured) -> None:
    filled.expire("k")
    (row,) = run(filled, capsys, "stats")
    assert (row["items"], row["namespaces"], row["expiring"], row["expired"]) == (3, 3, 2, 2)
    assert 30 < row["bytes"] < 60
    assert main(["store", "stats", "--url", filled.on.url]) == DONE
    assert capsys.readouterr().out == f"3\t3\t{row['bytes']}\t2\t2\n"


def test_stats_of_nothing(memory: Memory, capsys: Captured) -> None:
    (row,) = run(memory, capsys, "stats")
    assert (row["items"], row["bytes"], row["expired"], row["first"]) == (0, 0, 0, None)


def test_pages_and_tables_for_a_person(
    memory: Memory, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkpoint_sa.cli.memory._PAGE", 2)
    memory.batch([PutOp(("users", f"{i}"), "k", {}) for i in range(5)])
    url = ["--url", memory.on.url]
    assert main(["store", "ls", *url]) == DONE
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        ["users", f"{i}"] for i in range(5)
    ]
    assert main(["store", "delete", "users", "1", "k", "--yes", *url]) == DONE
    assert main(["store", "delete", "users", "--below", "--yes", *url]) == DONE
    assert capsys.readouterr().out.splitlines() == ["1 item deleted", "4 items deleted"]
