"""A chat service: the threads of several tenants, in the database of CHECKPOINT_SA_URL.

    export CHECKPOINT_SA_URL=sqlite+aiosqlite:///chat.db
    checkpoint-sa upgrade
    uvicorn chat:app

docs/fastapi.md explains it.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from checkpoint_sa import (
    AsyncSQLAlchemySaver,
    InvalidInputError,
    ParentConflictError,
    SchemaError,
    migrate,
)


async def answer(state: MessagesState) -> dict[str, list[AIMessage]]:
    """Stand in for a model: say how much of the conversation is remembered."""
    said = [str(message.content) for message in state["messages"] if message.type == "human"]
    return {"messages": [AIMessage(f"You said: {', '.join(said)}.")]}


builder = StateGraph(MessagesState)
builder.add_node(answer)
builder.add_edge(START, "answer")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the database once for each process, and compile the graph once."""
    engine = create_async_engine(
        os.environ["CHECKPOINT_SA_URL"],
        pool_size=5,
        max_overflow=5,
        pool_timeout=10,
        hide_parameters=True,
    )
    try:
        await migrate.averify(engine)  # a pod on an old schema doesn't start
        app.state.engine = engine
        app.state.saver = AsyncSQLAlchemySaver(engine, check_parent=True)
        app.state.graph = builder.compile(checkpointer=app.state.saver)
        yield
    finally:
        await engine.dispose()


app = FastAPI(lifespan=lifespan)


def tenant_of(x_tenant: Annotated[str, Header(pattern=r"^[a-z0-9-]+$")]) -> str:
    """Stand in for your authentication: a tenant comes from a checked token, not from a header."""
    return x_tenant


def thread_of(name: str, tenant: Annotated[str, Depends(tenant_of)]) -> RunnableConfig:
    """Return the config of the tenant's thread; no other tenant's thread can be named."""
    return {"configurable": {"thread_id": f"{tenant}:{name}"}, "metadata": {"tenant": tenant}}


Thread = Annotated[RunnableConfig, Depends(thread_of)]


class Turn(BaseModel):
    """The message of a user."""

    text: str


@app.post("/threads/{name}/turns")
async def take_turn(request: Request, thread: Thread, turn: Turn) -> dict[str, str]:
    """Answer, with the conversation so far."""
    state = await request.app.state.graph.ainvoke({"messages": [("user", turn.text)]}, thread)
    return {"answer": state["messages"][-1].content}


@app.post("/threads/{name}/stream")
async def stream_turn(request: Request, thread: Thread, turn: Turn) -> StreamingResponse:
    """Answer with a server-sent event for each step."""

    async def events() -> AsyncIterator[str]:
        steps = request.app.state.graph.astream(
            {"messages": [("user", turn.text)]}, thread, stream_mode="updates"
        )
        async for step in steps:
            for node, update in step.items():
                yield f"event: {node}\ndata: {json.dumps(update['messages'][-1].content)}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/threads/{name}")
async def read_thread(request: Request, thread: Thread) -> list[dict[str, Any]]:
    """Return the conversation."""
    state = await request.app.state.graph.aget_state(thread)
    messages = state.values.get("messages", [])
    return [{"role": message.type, "text": message.content} for message in messages]


@app.delete("/threads/{name}", status_code=204)
async def delete_thread(request: Request, thread: Thread) -> None:
    """Delete the conversation."""
    await request.app.state.saver.adelete_thread(thread["configurable"]["thread_id"])


@app.get("/ready")
async def ready(request: Request, response: Response) -> dict[str, str]:
    """Tell a readiness probe whether the database answers and this release can use its schema."""
    try:
        await migrate.averify(request.app.state.engine)
    except (SchemaError, SQLAlchemyError) as error:
        response.status_code = 503
        return {"status": type(error).__name__}
    return {"status": "ready"}


@app.exception_handler(InvalidInputError)
async def refuse(_: Request, error: Exception) -> JSONResponse:
    """Answer an id that can't be stored: too long, or with a NUL character."""
    return JSONResponse({"detail": str(error)}, 422)


@app.exception_handler(ParentConflictError)
async def conflict(_: Request, __: Exception) -> JSONResponse:
    """Answer the second of two turns of one thread at the same time."""
    return JSONResponse({"detail": "This thread has changed meanwhile. Read it, try again."}, 409)
