"""Accept a request so that it can't be lost: its row, its first checkpoint and a memory at once.

    python examples/admission/admission.py sqlite:///app.db

A web application answers "accepted" when it has only a row in a table, and a worker makes the first
checkpoint later: a crash between the two leaves a request that no graph knows of. Here one
transaction has all three, so a crash leaves all of them or none. A worker then takes the accepted
requests, and continues each from its first checkpoint, also after a crash of its own.
"""

from __future__ import annotations

import sys
import uuid
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore  # noqa: TC002 - LangGraph reads the annotation
from sqlalchemy import Column, Engine, MetaData, String, Table, create_engine, select, update

from checkpoint_sa import SQLAlchemySaver, SQLAlchemyStore


class State(TypedDict):
    """A question of a user, and its answer."""

    user: str
    question: str
    answer: str


def answer(state: State, *, store: BaseStore) -> dict[str, str]:
    """Answer with what is remembered of the user."""
    asked = len(store.search(("questions", state["user"]), limit=100))
    return {"answer": f"{state['user']} has asked {asked} questions"}


builder = StateGraph(State)
builder.add_node("answer", answer)
builder.add_edge(START, "answer")
builder.add_edge("answer", END)

requests = Table(
    "requests",
    MetaData(),
    Column("id", String(36), primary_key=True),
    Column("status", String(10), nullable=False),
)


def setup(engine: Engine) -> None:
    """Create the application's table and those of checkpoint_sa."""
    requests.create(engine, checkfirst=True)
    SQLAlchemySaver(engine).setup()


def config_of(request_id: str) -> Any:
    """Return the config of a request's thread."""
    return {"configurable": {"thread_id": request_id}}


def accept(engine: Engine, user: str, question: str) -> str:
    """Accept a request in one transaction, and return its id; nothing has run yet."""
    request_id = str(uuid.uuid4())
    state = {"user": user, "question": question, "answer": ""}
    with engine.begin() as connection:
        connection.execute(requests.insert(), {"id": request_id, "status": "accepted"})
        memory = SQLAlchemyStore(connection)
        memory.put(("questions", user), request_id, {"question": question})
        graph = builder.compile(checkpointer=SQLAlchemySaver(connection), store=memory)
        graph.update_state(config_of(request_id), state, as_node=START)
    return request_id


def work(engine: Engine) -> list[str]:
    """Do the accepted requests, and return the answers."""
    graph = builder.compile(checkpointer=SQLAlchemySaver(engine), store=SQLAlchemyStore(engine))
    answers = []
    with engine.connect() as connection:
        waiting = connection.scalars(select(requests.c.id).where(requests.c.status == "accepted"))
        ids = list(waiting)
    for request_id in ids:
        answers.append(graph.invoke(None, config_of(request_id))["answer"])
        with engine.begin() as connection:
            done = update(requests).where(requests.c.id == request_id).values(status="done")
            connection.execute(done)
    return answers


if __name__ == "__main__":
    engine = create_engine(sys.argv[1], hide_parameters=True)
    setup(engine)
    for question in ("Who are you?", "What do you know of me?"):
        accept(engine, "ada", question)
    print(*work(engine), sep="\n")
