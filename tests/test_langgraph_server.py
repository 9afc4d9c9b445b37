"""LangGraph's server with a saver of this package: a thread outlives a restart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from servers import free_port
from stores import thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stores import Store

pytestmark = [
    pytest.mark.server,
    pytest.mark.parametrize(
        "migrated_store",
        ["aiosqlite", "pg-psycopg-async", "pg-asyncpg", "mariadb-async", "mysql-async"],
        indirect=True,
    ),
]

EXAMPLE = Path(__file__).parents[1] / "examples" / "langgraph_server"

AGENT = """
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

def answer(state: MessagesState):
    said = interrupt("sure?")
    return {"messages": [("ai", f"{said}, {len(state['messages'])} message")]}

builder = StateGraph(MessagesState)
builder.add_node("answer", answer)
builder.add_edge(START, "answer")
graph = builder.compile()
"""


@contextmanager
def served(folder: Path, url: str) -> Iterator[httpx.Client]:
    """Start the server of `langgraph dev` in a project's folder, and end it as Ctrl-C does."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "langgraph"), "dev", "--no-browser", "--no-reload"]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            env={**os.environ, "CHECKPOINT_SA_URL": url, "LANGSMITH_TRACING": "false"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            until = time.monotonic() + 120
            while not _answers(client):
                assert process.poll() is None, log.read_text(errors="replace")
                assert time.monotonic() < until, log.read_text(errors="replace")
                time.sleep(0.5)
            yield client
    finally:
        process.terminate()
        process.wait(60)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/ok").is_success
    except httpx.TransportError:
        return False


def run(client: httpx.Client, thread_id: str, **work: Any) -> Any:
    """Run the graph until it ends or waits; return its state."""
    body = {"assistant_id": "agent", **work}
    done = client.post(f"/threads/{thread_id}/runs/wait", json=body)
    assert done.is_success, done.text
    return done.json()


def test_a_waiting_thread_resumes_after_a_restart(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(EXAMPLE, folder)
    (folder / "agent.py").write_text(AGENT, encoding="utf-8")
    settings = json.loads((folder / "langgraph.json").read_text(encoding="utf-8"))
    settings["checkpointer"]["ttl"] = {"strategy": "delete", "default_ttl": 1000}
    (folder / "langgraph.json").write_text(json.dumps(settings), encoding="utf-8")
    with served(folder, store.url) as client:
        thread_id = client.post("/threads", json={}).json()["thread_id"]
        message = {"role": "user", "content": "hello"}
        state = run(client, thread_id, input={"messages": [message]})
        assert [each["value"] for each in state["__interrupt__"]] == ["sure?"]
    assert store.found(thread(thread_id)).metadata["step"] == 0
    with served(folder, store.url) as client:
        state = run(client, thread_id, command={"resume": "yes"})
    assert [each["content"] for each in state["messages"]] == ["hello", "yes, 1 message"]
    assert len(store.list(thread(thread_id))) == 3
