"""Unique words planted in every field of every event, and the search for them in the bytes on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from turnlog import ConversationStore, Session
from turnlog.domain import events as e
from turnlog.domain.values import RecordedEvent
from turnlog.inputs import WriteOptions

BIG = 20_000
"""Characters; such a row spreads over several pages of a database file."""


class Words:
    """One person's words: each is made once, and all begin alike so that no other can hide from a search.

    A session's id is none of them: the name of a stream stays in the log, by design.
    """

    def __init__(self, person: str) -> None:
        self.start = f"zq{person}zq"
        self.planted: list[str] = []
        self.user = self("user")

    def __call__(self, field: str, size: int = 0) -> str:
        """Return a new word; with a ``size`` it stands at both ends of a text of so many characters."""
        word = f"{self.start}.{field}.{len(self.planted)}."
        self.planted.append(word)
        return f"{word}{'-' * size}{word}" if size else word

    def pair(self, field: str) -> dict[str, Any]:
        """Return a JSON object of a new key and a new, nested value."""
        return {self(f"{field}-key"): [{"deep": self(field)}]}

    def audit(self) -> WriteOptions:
        """Return the keywords every write takes, each a new word."""
        return {
            "actor": self("actor"),
            "correlation_id": self("correlation"),
            "causation_id": self("causation"),
            "command_id": self("command"),
        }


class Notes:
    """An application's read model: every text that was said. It cannot apply one that contains ``poison``."""

    name = "notes"
    revision = 1
    key = "session"

    def __init__(self, poison: str = "poison") -> None:
        self.poison = poison

    def create(self, connection: Any) -> None:
        """Create the table."""
        connection.execute("CREATE TABLE notes (tenant TEXT, session_id TEXT, text TEXT)")

    def apply(self, events: Sequence[RecordedEvent], connection: Any) -> None:
        """Note down; raise what names the content, as a careless application would."""
        for recorded in events:
            match recorded.event:
                case e.MessageAdded(content=str(text)) if self.poison in text:
                    raise ValueError(text)
                case e.MessageAdded(content=str(text)):
                    row = (recorded.tenant, recorded.session_id, text)
                    connection.execute("INSERT INTO notes VALUES (?, ?, ?)", row)
                case e.SessionDeleted():  # the tombstone: who deleted, and for whom, is erased with the rest
                    connection.execute("DELETE FROM notes WHERE session_id = ?", (recorded.session_id,))
                case _:
                    pass


class ForgettingNotes(Notes):
    """Notes that are forgotten within the erasure."""

    def forget(self, tenant: str, session_id: str, connection: Any) -> None:
        """Forget the session's texts."""
        connection.execute("DELETE FROM notes WHERE tenant = ? AND session_id = ?", (tenant, session_id))


def converse(store: ConversationStore, session_id: str, words: Words, size: int = 0) -> Session:
    """Hold a conversation with every kind of event but the tombstone, new words in every field."""
    session = store.session(
        session_id,
        agent=words("agent"),
        data=words.pair("data"),
        context=words.pair("context"),
        metadata=words.pair("metadata"),
        history=[{"role": "system", "content": words("first"), "name": words("name")}],
    )
    session.assign_owner(words.user, **words.audit())
    _forgotten(session, words, size)
    _progress(session, words)
    _data(session, words)
    _messages(session, words, size)
    return session


def _forgotten(session: Session, words: Words, size: int) -> None:
    """Say what no history shows any more."""
    for _ in range(3):
        session.add_message("user", words("early", size), **words.audit())
    session.compact_history(words("summary", size), 1, **words.audit())
    session.set_history(
        [{"role": "user", "content": words("set", size), "name": words("name"), "metadata": words.pair("set")}],
        **words.audit(),
    )
    session.clear_history(**words.audit())
    removed = words("message-id")
    session.add_message("user", words("removed", size), message_id=removed)
    session.remove_message(removed, **words.audit())


def _progress(session: Session, words: Words) -> None:
    session.enter_route(words("route"), title=words("title"), reason=words("reason"), **words.audit())
    session.enter_step(words("step"), description=words("description"), **words.audit())
    session.plan_transition(words("next"), condition=words("condition"), reason=words("reason"), **words.audit())
    session.cancel_transition(**words.audit())
    call, run = words("call-id"), words("run-id")
    session.call_tool(words("tool"), words.pair("arguments"), call_id=call, **words.audit())
    session.return_tool(call, words.pair("result"), name=words("tool"), error=words("error"), **words.audit())
    session.start_run(run, **words.pair("details"), **words.audit())
    session.finish_run(
        run,
        status="failed",
        result=words.pair("result"),
        error=words("error"),
        usage=words.pair("usage"),
        **words.audit(),
    )
    session.exit_route(completed=True, **words.audit())
    session.pause(reason=words("reason"), **words.audit())
    session.reopen(reason=words("reason"), **words.audit())
    session.enter_route(words("route"))
    session.enter_step(words("step"))


def _data(session: Session, words: Words) -> None:
    discarded = words("discarded")
    session.collect({discarded: words("value")}, **words.audit())
    session.discard(discarded, **words.audit())
    session.clear_data(**words.audit())
    session.collect(words.pair("collected"), **words.audit())
    session.set_context(words.pair("context"), **words.audit())
    session.set_metadata(words.pair("metadata"), **words.audit())


def _messages(session: Session, words: Words, size: int) -> None:
    """Say what the views show, and enough for a snapshot."""
    edited = words("message-id")
    session.add_message(
        "user", words("said", size), name=words("name"), message_id=edited, metadata=words.pair("meta"), **words.audit()
    )
    session.edit_message(edited, words("edited", size * 2), **words.audit())
    function = {"name": words("function"), "arguments": words("arguments")}
    called = {"id": words("call-id"), "type": "function", "function": function}
    session.add_message("assistant", [{"type": "text", "text": words("part")}], tool_calls=[called])
    session.add_message("tool", words("returned"), tool_call_id=words("call-id"))
    with session.turn(**words.audit()):
        for n in range(90):
            session.add_message("user", words("more", size if n % 30 == 0 else n))


def remains(directory: Path, words: Words) -> list[str]:
    """Return the words that are found in any file of the directory."""
    found = _bytes(directory)
    if words.start.encode() not in found:
        return []
    return [word for word in words.planted if word.encode() in found] or [words.start]


def _bytes(directory: Path) -> bytes:
    return b"\n".join(file.read_bytes() for file in sorted(directory.rglob("*")) if file.is_file())


def refusals(session: Session) -> list[Any]:
    """Return every call of a handle that reads or writes the store."""
    return [
        session.refresh,
        session.history,
        session.routes,
        session.steps,
        session.runs,
        session.fork,
        session.reset,
        session.delete,
        session.pop_message,
        session.clear_history,
        session.clear_data,
        session.exit_route,
        session.cancel_transition,
        session.reopen,
        session.pause,
        session.archive,
        lambda: session.history(include_removed=True),
        lambda: session.history(at=1),
        lambda: session.message("m"),
        lambda: session.at(version=1),
        lambda: session.diff(1, 2),
        lambda: list(session.events()),
        lambda: list(session.replay()),
        lambda: session.add_message("user", "again"),
        lambda: session.add_messages([{"role": "user", "content": "again"}]),
        lambda: session.set_history([]),
        lambda: session.edit_message("m", "again"),
        lambda: session.remove_message("m"),
        lambda: session.compact_history("again", 1),
        lambda: session.collect(a=1),
        lambda: session.discard("a"),
        lambda: session.set_context({"a": 1}),
        lambda: session.set_metadata({"a": 1}),
        lambda: session.enter_route("r"),
        lambda: session.enter_step("s"),
        lambda: session.plan_transition("r"),
        lambda: session.call_tool("t", {}),
        lambda: session.return_tool("c", "x"),
        lambda: session.start_run("r"),
        lambda: session.finish_run("r", status="failed"),
        lambda: session.assign_owner("mallory"),
    ]
