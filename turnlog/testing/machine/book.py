"""What the whole store should be: every session's model, and the lists over them."""

import re
from collections.abc import Iterable, Sequence
from copy import deepcopy
from datetime import datetime
from typing import Any

from turnlog import NotOwner, SessionGone
from turnlog.testing.machine.commands import Said
from turnlog.testing.machine.plainly import is_dict, is_sequence
from turnlog.testing.machine.talk import Refused, Talk

_TIMES = ("created_at", "updated_at", "last_message_at", "completed_at", "recorded_at")
_MORE_TIMES = ("entered_at", "exited_at", "started_at", "finished_at")


class Book:
    """All sessions by id; deleted ones stay in it, as tombstones."""

    def __init__(self) -> None:
        self.talks: dict[str, Talk] = {}
        self.order = 0

    def tick(self) -> int:
        """Return the next place in the log."""
        self.order += 1
        return self.order

    def living(self) -> list[Talk]:
        """Return the sessions that are not deleted."""
        return [talk for talk in self.talks.values() if not talk.state["deleted"]]

    # --- commands -----------------------------------------------------------------------------------------------------

    def session(
        self, session_id: str, clock: datetime, values: dict[str, Any], history: Sequence[dict[str, Any]] = ()
    ) -> bool:
        """Get or create; return whether it was created."""
        talk = self.talks.get(session_id)
        if talk is None:
            self.talks[session_id] = talk = Talk(session_id, self.tick)
            talk.start(clock, values, history)
            return True
        if talk.state["deleted"]:
            raise Refused(SessionGone)
        owner = values.get("user_id")
        if owner is not None and talk.state["user_id"] not in (None, owner):
            raise Refused(NotOwner)
        if owner is not None and talk.state["user_id"] is None:
            talk.say(_assigned(owner), clock)
        return False

    def fork(self, source: str, new_id: str, version: int, clock: datetime) -> None:
        """Copy versions 1..version; everything was recorded just now, and occurred when it did."""
        origin, fork = self.talks[source], Talk(new_id, self.tick)
        first = self.order
        self.order += version
        for n in range(1, version + 1):
            now = deepcopy(origin.past[n])
            _record_at(now, clock)
            now["state"].update(id=new_id, forked_from={"session_id": source, "version": version})
            for message in now["messages"]:
                message["place"][0] = first + message["version"]
            now["first"], now["newest"] = first + 1, first + n
            fork.past.append(now)
            fork.times.append(clock)
        fork.now = deepcopy(fork.past[-1])
        fork.keys = {key: used for key, used in origin.keys.items() if key[0] == "message" and used[1] <= version}
        if fork.state["status"] != "active":
            fork.say(_status("active"), clock)
        if origin.state["user_id"] is not None:
            fork.say(_assigned(origin.state["user_id"]), clock)
        self.talks[new_id] = fork

    def reset(self, session_id: str, new_id: str, clock: datetime, *, preserve_history: bool) -> None:
        """Archive it, and start one that continues it."""
        old = self.talks[session_id]
        messages = old.messages if preserve_history else []
        old.say(_status("archived"), clock)
        said = ("message_id", "role", "content", "name", "tool_calls", "tool_call_id", "metadata", "occurred_at")
        kept = [{name: message[name] for name in said} for message in messages]
        start = {"user_id": old.state["user_id"], "agent": old.state["agent"], "continued_from": session_id}
        self.session(new_id, clock, start, kept)
        self.talks[new_id].keys = {
            key: (old.keys[key][0], version)
            for version, message in enumerate(messages, 2)
            if (key := ("message", message["message_id"])) in old.keys
        }

    def erase_user(self, user_id: str, clock: datetime) -> tuple[int, int, int]:
        """Delete all of a user's; return how many sessions, events and forks."""
        theirs = [talk for talk in self.living() if talk.state["user_id"] == user_id]
        for talk in theirs:
            talk.delete(clock)
        forks = sum(talk.state["forked_from"] is not None for talk in theirs)
        return len(theirs), sum(talk.version for talk in theirs), forks

    # --- lists --------------------------------------------------------------------------------------------------------

    def sessions(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return the states of those that are as wanted, newest update first."""
        older, newer = wanted.pop("older_than", None), wanted.pop("newer_than", None)
        route = wanted.pop("route", None)
        wanted |= {} if route is None else {"current_route": route}
        found = [
            talk
            for talk in self.living()
            if all(value is None or talk.state[name] == value for name, value in wanted.items())
            and (older is None or talk.state["updated_at"] < older)
            and (newer is None or talk.state["updated_at"] > newer)
        ]
        return [talk.state for talk in sorted(found, key=lambda talk: talk.now["newest"], reverse=True)]

    def messages(self, user_id: str) -> list[dict[str, Any]]:
        """Return a user's messages, newest first."""
        theirs = [talk.messages for talk in self.living() if talk.state["user_id"] == user_id]
        return sorted((message for messages in theirs for message in messages), key=_place, reverse=True)

    def search(self, text: str, **wanted: Any) -> list[dict[str, Any]]:
        """Return the messages with all words of a text that are as wanted, newest first."""
        user_id = wanted.pop("user_id", None)
        talks = [talk for talk in self.living() if user_id in (None, talk.state["user_id"])]
        found = (
            message
            for talk in talks
            for message in talk.messages
            if all(message[name] == value for name, value in wanted.items())
            and _words(text) <= _words(message["content"])
        )
        return sorted(found, key=_place, reverse=True)

    def active(self, user_id: str) -> str | None:
        """Return the id of the user's active session that was created last."""
        theirs = [talk for talk in self.living() if talk.state["user_id"] == user_id]
        active = [talk for talk in theirs if talk.state["status"] == "active"]
        return max(active, key=lambda talk: talk.now["first"]).state["id"] if active else None

    def users(self) -> dict[str, tuple[int, int]]:
        """Return, of every user who owns sessions, how many, and how many messages."""
        states = [talk.state for talk in self.living() if talk.state["user_id"] is not None]
        return {user: _counts(states, user) for user in sorted({state["user_id"] for state in states})}

    def events(self) -> int:
        """Return how many events there are."""
        return sum(talk.version for talk in self.talks.values())


def _counts(states: Iterable[dict[str, Any]], user_id: str) -> tuple[int, int]:
    counts = [state["message_count"] for state in states if state["user_id"] == user_id]
    return len(counts), sum(counts)


def _words(content: Any) -> set[str]:
    texts = [content] if isinstance(content, str) else [part["text"] for part in content or ()]
    return {word for text in texts for word in re.split("[ ,\0\u200d]+", text.lower()) if word}


def _place(message: dict[str, Any]) -> Any:
    return message["place"]


def _assigned(user_id: str) -> Said:
    return Said("assign_owner", (user_id,), {})


def _status(status: str) -> Said:
    return Said("set_status", (status,), {})


def _record_at(value: object, time: datetime) -> None:
    """Put ``time`` in the place of every time that says when something was recorded."""
    if is_sequence(value):
        for item in value:
            _record_at(item, time)
    elif is_dict(value):
        for name, item in value.items():
            if isinstance(item, datetime) and name in _TIMES + _MORE_TIMES:
                value[name] = time
            else:
                _record_at(item, time)
