"""The application of examples/fastapi: its life cycle, over ASGI, in this process."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from databases import bare_store
from langchain_core.runnables import RunnableLambda

from checkpoint_sa import SchemaError, migrate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import ModuleType

    from stores import Store

__all__ = ["bare_store"]

EXAMPLE = Path(__file__).parents[1] / "examples" / "fastapi" / "chat.py"
ACME, OTHER = {"x-tenant": "acme"}, {"x-tenant": "other"}

on_async_drivers = pytest.mark.parametrize(
    "bare_store", ["aiosqlite", "pg-psycopg-async", "mariadb-async", "mysql-async"], indirect=True
)
on_sqlite = pytest.mark.parametrize("bare_store", ["aiosqlite"], indirect=True)


@pytest.fixture
def chat(bare_store: Store, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("CHECKPOINT_SA_URL", bare_store.url)
    spec = importlib.util.spec_from_file_location("chat", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "chat", module)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def served(chat: ModuleType) -> AsyncIterator[httpx.AsyncClient]:
    """Start the application, and shut it down at the end, as a server does."""
    async with chat.app.router.lifespan_context(chat.app):
        transport = httpx.ASGITransport(app=chat.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://chat") as client:
            yield client


async def say(client: httpx.AsyncClient, text: str, **more: Any) -> httpx.Response:
    return await client.post("/threads/1/turns", json={"text": text}, headers=ACME, **more)


@on_async_drivers
def test_a_conversation_outlives_a_restart(bare_store: Store, chat: ModuleType) -> None:
    async def use() -> None:
        await migrate.aupgrade(bare_store.url)
        async with served(chat) as client:
            assert (await client.get("/ready")).json() == {"status": "ready"}
            assert (await say(client, "one")).json() == {"answer": "You said: one."}
            assert (await say(client, "two")).json() == {"answer": "You said: one, two."}
        async with served(chat) as client:
            assert (await say(client, "three")).json() == {"answer": "You said: one, two, three."}
            assert len((await client.get("/threads/1", headers=ACME)).json()) == 6
            assert (await client.get("/threads/1", headers=OTHER)).json() == []
            assert (await client.delete("/threads/1", headers=ACME)).status_code == 204
            assert (await client.get("/threads/1", headers=ACME)).json() == []

    asyncio.run(use())


@on_sqlite
def test_steps_are_streamed(bare_store: Store, chat: ModuleType) -> None:
    async def use() -> None:
        await migrate.aupgrade(bare_store.url)
        async with (
            served(chat) as client,
            client.stream(
                "POST", "/threads/1/stream", json={"text": "hi"}, headers=ACME
            ) as response,
        ):
            lines = [line async for line in response.aiter_lines()]
        assert lines == ["event: answer", 'data: "You said: hi."', ""]

    asyncio.run(use())


@on_sqlite
def test_a_database_without_the_tables_is_not_served(chat: ModuleType) -> None:
    async def use() -> None:
        async with served(chat):
            pass

    with pytest.raises(SchemaError, match="checkpoint-sa upgrade"):
        asyncio.run(use())


@on_sqlite
def test_readiness_follows_the_schema(bare_store: Store, chat: ModuleType) -> None:
    async def use() -> None:
        await migrate.aupgrade(bare_store.url)
        async with served(chat) as client:
            await migrate.adowngrade(bare_store.url, "base")
            response = await client.get("/ready")
            assert (response.status_code, response.json()) == (503, {"status": "SchemaError"})

    asyncio.run(use())


@on_sqlite
def test_two_turns_at_once_are_one_answer_and_one_conflict(
    bare_store: Store, chat: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = asyncio.Event()
    waiting: list[object] = []

    async def answer(state: object) -> dict[str, object]:
        waiting.append(state)
        if len(waiting) == 2:
            both.set()
        await asyncio.wait_for(both.wait(), 10)
        return {"messages": [("ai", "done")]}

    monkeypatch.setattr(chat.builder.nodes["answer"], "runnable", RunnableLambda(answer))

    async def use() -> None:
        await migrate.aupgrade(bare_store.url)
        async with served(chat) as client:
            responses = await asyncio.gather(say(client, "a"), say(client, "b"))
        assert sorted(response.status_code for response in responses) == [200, 409]

    asyncio.run(use())


@on_sqlite
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/threads/" + "x" * 600, ACME, 422),
        ("/threads/%00", ACME, 422),
        ("/threads/1", {}, 422),
        ("/threads/1", {"x-tenant": "acme:1"}, 422),
    ],
)
def test_what_cannot_be_an_id_is_refused(
    bare_store: Store, chat: ModuleType, path: str, headers: dict[str, str], status: int
) -> None:
    async def use() -> None:
        await migrate.aupgrade(bare_store.url)
        async with served(chat) as client:
            assert (await client.get(path, headers=headers)).status_code == status

    asyncio.run(use())
