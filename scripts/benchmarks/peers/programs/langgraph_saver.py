"""LangGraph: a graph of one node that answers, with ``SqliteSaver``; a turn is one ``invoke`` on the thread.

https://docs.langchain.com/oss/python/langgraph/add-memory and, for ``durability="exit"`` (one checkpoint a turn, the
cheapest of the three), https://docs.langchain.com/oss/python/langgraph/durable-execution. With the argument ``delta``
its messages are a ``DeltaChannel``: https://reference.langchain.com/python/langgraph/channels/delta/DeltaChannel
"""

import sqlite3
import sys
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AnyMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph, add_messages

from scripts.benchmarks.peers.answering import TEXT, answer


def _added(messages: list[AnyMessage], writes: list[Any]) -> Any:
    """Add all writes in one pass, as ``DeltaChannel`` asks of a reducer."""
    return add_messages(messages, [message for write in writes for message in write])


class DeltaState(TypedDict):
    """Messages kept as what each step adds, and a whole copy now and then: in beta at the pinned version."""

    messages: Annotated[list[AnyMessage], DeltaChannel(_added)]


class Threads:
    """See ``answering.Conversations``."""

    def __init__(self, state: type) -> None:
        self._state = state
        self._answer = ""

    async def open(self, path: str, durability: str) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False)
        if durability == "normal":
            self._connection.execute("PRAGMA synchronous=NORMAL")
        builder = StateGraph(self._state)
        builder.add_node("answer", lambda _: {"messages": [_message("assistant", self._answer)]})
        builder.add_edge(START, "answer")
        builder.add_edge("answer", END)
        self._graph = builder.compile(checkpointer=SqliteSaver(self._connection))

    async def close(self) -> None:
        self._connection.close()

    async def join(self, session_id: str) -> None:
        self._config: Any = {"configurable": {"thread_id": session_id}}

    async def refresh(self) -> None:
        """Do nothing: ``invoke`` loads the thread's newest checkpoint."""

    async def turn(self, user: str, assistant: str) -> None:
        self._answer = assistant
        self._graph.invoke({"messages": [_message("user", user)]}, self._config, durability="exit")

    async def fill(self, turns: int) -> None:
        self._answer = TEXT
        said = [_message("user", TEXT), _message("assistant", TEXT)] * turns
        self._graph.invoke({"messages": said[:-1]}, self._config, durability="exit")

    async def last(self, n: int) -> list[str]:
        return [message.content for message in self._messages()[-n:]]

    async def everything(self) -> list[str]:
        return [message.content for message in self._messages()]

    async def settings(self) -> str:
        ask = self._connection.execute
        asked = [ask(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
        return "journal_mode {}, synchronous {}".format(*asked)

    def _messages(self) -> Any:
        return self._graph.get_state(self._config).values["messages"]


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


if __name__ == "__main__":
    answer(Threads(DeltaState if sys.argv[1:] == ["delta"] else MessagesState))
