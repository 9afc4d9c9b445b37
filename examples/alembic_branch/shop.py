"""A shop with an order table of its own, and LangGraph's checkpoints beside it."""

from __future__ import annotations

import os

from langchain_core.messages import HumanMessage
from langgraph.graph import START, MessagesState, StateGraph
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from checkpoint_sa import SQLAlchemySaver


class Base(DeclarativeBase):
    """The application's models."""


class Order(Base):
    """An order, and the conversation in which it was made."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    thread_id: Mapped[str]


def main() -> None:
    """Talk once, and order."""
    engine = create_engine(os.environ["DATABASE_URL"])
    builder = StateGraph(MessagesState)
    builder.add_node("answer", lambda _: {"messages": [("ai", "Ordered.")]})
    builder.add_edge(START, "answer")
    graph = builder.compile(checkpointer=SQLAlchemySaver(engine))
    with Session(engine) as session, session.begin():
        session.add(Order(thread_id="1"))
    said = graph.invoke(
        {"messages": [HumanMessage("one, please")]}, {"configurable": {"thread_id": "1"}}
    )
    with Session(engine) as session:
        count = session.scalar(select(func.count()).select_from(Order))
    print(f"{count} order; {len(said['messages'])} messages")
    engine.dispose()


if __name__ == "__main__":
    main()
