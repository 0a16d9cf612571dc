"""What a session should be, in plain dicts and lists: the model that the state machine holds the store against.

Nothing of turnlog's own rules is used here; only its error classes and its words.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from datetime import datetime
from typing import Any, TypedDict

from turnlog import (
    ConcurrencyConflict,
    IdempotencyConflict,
    InvalidInput,
    RuleViolation,
    SessionClosed,
    SessionGone,
    TurnlogError,
)
from turnlog.testing.machine.commands import Said
from turnlog.testing.machine.plainly import OPTIONS, bare, same, uniform, window

CLOSED = ("completed", "abandoned", "failed", "expired", "archived")
ALSO_WHEN_CLOSED = (
    "edit_message",
    "remove_message",
    "pop_message",
    "set_metadata",
    "return_tool",
    "finish_run",
    "set_status",
    "assign_owner",
)
MAKING_IDS = ("add_message", "compact_history", "call_tool", "start_run")


class Refused(Exception):
    """The model says that this must be refused, with that error."""

    def __init__(self, kind: type[TurnlogError]) -> None:
        super().__init__(kind.__name__)
        self.kind = kind


class Now(TypedDict):
    """What a session is at one version: its state, and what is not part of that.

    ``ever`` are the ids of all messages, ``calls`` the names of the tools called; ``first`` and ``newest`` are the
    places in the whole log of its first and last event.
    """

    state: dict[str, Any]
    messages: list[dict[str, Any]]
    ever: list[str]
    steps: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    calls: dict[str | None, str]
    first: int
    newest: int


def nothing(session_id: str) -> Now:
    """Return a session of which nothing is recorded."""
    unset = ("user_id", "agent", "continued_from", "forked_from", "current_route", "current_step", "pending_transition")
    state: dict[str, Any] = dict.fromkeys((*unset, "created_at", "updated_at", "last_message_at", "completed_at"))
    state |= {"id": session_id, "tenant": "default", "status": "active", "deleted": False, "route_history": []}
    state |= {"data": {}, "data_by_route": {}, "context": {}, "metadata": {}}
    state |= dict.fromkeys(("route_count", "message_count", "tool_call_count", "version"), 0)
    return {"state": state, "messages": [], "ever": [], "steps": [], "runs": [], "calls": {}, "first": 0, "newest": 0}


class Talk:
    """One session: ``now`` is what it is, ``past[n]`` what it was at version n, ``times[n]`` when that was recorded.

    ``keys`` are the ids used in it: what they were used for, and the version they led to. ``tick`` gives the place in
    the whole log of the next event.
    """

    def __init__(self, session_id: str, tick: Callable[[], int]) -> None:
        self.tick = tick
        self.now = nothing(session_id)
        self.past: list[Now] = [deepcopy(self.now)]
        self.times: list[datetime | None] = [None]
        self.keys: dict[tuple[str, str], tuple[str, int]] = {}
        self.clock: datetime | None = None
        self.occurred_at: datetime | None = None

    def copy(self) -> "Talk":
        """Return a copy that shares only the past, which never changes."""
        copied = Talk(self.state["id"], self.tick)
        copied.now, copied.past, copied.times = deepcopy(self.now), list(self.past), list(self.times)
        copied.keys = dict(self.keys)
        return copied

    def become(self, other: "Talk") -> None:
        """Take everything from ``other``."""
        self.__dict__ = other.__dict__

    @property
    def state(self) -> dict[str, Any]:
        return self.now["state"]

    @property
    def version(self) -> int:
        return len(self.past) - 1

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self.now["messages"]

    def version_at(self, time: datetime) -> int:
        """Return the last version recorded at or before a time."""
        return max(n for n, at in enumerate(self.times) if at is None or at <= time)

    # --- saying -------------------------------------------------------------------------------------------------------

    def start(self, clock: datetime, values: Mapping[str, Any], history: Sequence[Mapping[str, Any]] = ()) -> None:
        """Create it."""
        self.at(clock)
        self.state.update({**deepcopy(dict(values)), "created_at": self.clock})
        self.recorded()
        self.now["first"] = self.past[-1]["first"] = self.now["newest"]
        for message in history:
            self._message(message)
            self.keys["message", message["message_id"]] = (bare([Said("add_message", (), message)]), self.version)

    def say(self, said: Said, clock: datetime, made: str | None = None, *, expected: bool = True) -> None:
        """Do what was said, or refuse it and change nothing; ``made`` is the id that the store made for it.

        ``expected`` tells whether the session was at the version that the turn around it expects.
        """
        if self.state["deleted"]:
            raise Refused(SessionGone)
        said = uniform(said)
        parts = [said]
        if said.name == "add_messages":
            parts = [Said("add_message", (), dict(message)) for message in said.args[0]]
        if self.repeats(said.kwargs.get("command_id"), parts):
            return
        expected = expected and said.kwargs.get("expected_version") in (None, self.version)
        copied = self.copy()
        for part in parts:
            copied.do(part, clock, said.kwargs.get("occurred_at"), made, expected=expected)
        if said.kwargs.get("command_id") is not None:
            copied.used(said.kwargs["command_id"], parts)
        self.become(copied)

    def repeats(self, command_id: str | None, parts: Iterable[Said], kind: str = "command") -> bool:
        """Return whether this was done before under that id."""
        if command_id is None or (kind, command_id) not in self.keys:
            return False
        if self.keys[kind, command_id][0] != bare(parts):
            raise Refused(IdempotencyConflict)
        return True

    def used(self, command_id: str, parts: Iterable[Said]) -> None:
        """Note what an id was used for."""
        self.keys["command", command_id] = (bare(parts), self.version)

    def delete(self, clock: datetime) -> None:
        """Delete it."""
        self.at(clock)
        self.state["deleted"] = True
        self.recorded()

    def do(
        self, said: Said, clock: datetime, occurred_at: datetime | None, made: str | None, *, expected: bool
    ) -> None:
        """Do one command; refused, it may leave half of it done, so ``say`` does it to a copy."""
        message_id = said.kwargs.get("message_id") if said.name == "add_message" else None
        if self.repeats(message_id, [said], "message"):
            return
        if not expected:
            raise Refused(ConcurrencyConflict)
        if self.state["status"] in CLOSED and said.name not in ALSO_WHEN_CLOSED:
            raise Refused(SessionClosed)
        self.at(clock, said.kwargs.get("occurred_at") or occurred_at)
        kwargs = {name: value for name, value in said.kwargs.items() if name not in OPTIONS}
        if said.name in MAKING_IDS:
            kwargs["made"] = made
        getattr(self, f"_{said.name}")(*deepcopy(said.args), **deepcopy(kwargs))
        if message_id is not None:
            self.keys["message", message_id] = (bare([said]), self.version)

    def at(self, clock: datetime, occurred_at: datetime | None = None) -> None:
        """Note what time it is; a session's time never goes back."""
        last = self.times[-1]
        self.clock = clock if last is None or last < clock else last
        self.occurred_at = occurred_at or self.clock

    def recorded(self) -> None:
        """Note that one event happened, and what the session is after it."""
        self.now["newest"] = self.tick()
        self.state.update(version=self.version + 1, updated_at=self.clock, message_count=len(self.messages))
        self.past.append(deepcopy(self.now))
        self.times.append(self.clock)

    # --- messages -----------------------------------------------------------------------------------------------------

    def _add_message(self, role: str, content: Any, made: str | None = None, **fields: Any) -> None:
        if self.state["status"] == "paused":
            self._set_status("active")
        self._message({"role": role, "content": content, "message_id": made, **fields})

    def _message(self, given: Mapping[str, Any]) -> None:
        self._bring([given], self.state["current_route"], self.state["current_step"])
        self.state["last_message_at"] = self.clock
        self.recorded()

    def _bring(self, given: Sequence[Mapping[str, Any]], route: str | None = None, step: str | None = None) -> None:
        """Add messages that one event brings; ``place`` is where in the whole log they stand."""
        tick = self.tick()
        for item, message in enumerate(given):
            new: dict[str, Any] = dict.fromkeys(("name", "tool_calls", "tool_call_id", "metadata"))
            new |= {"route": route, "step": step, "recorded_at": self.clock, "occurred_at": self.occurred_at}
            new |= {"version": self.version + 1, "place": [tick, item]} | dict(message)
            self.messages.append(new)
            if new["message_id"] not in self.now["ever"]:
                self.now["ever"].append(new["message_id"])

    def _visible(self, message_id: str) -> dict[str, Any]:
        found = [message for message in self.messages if message["message_id"] == message_id]
        if not found:
            raise Refused(InvalidInput)
        return found[-1]

    def _edit_message(self, message_id: str, content: Any) -> None:
        message = self._visible(message_id)
        if not same(message["content"], content):
            message["content"] = content
            self.recorded()

    def _remove_message(self, message_id: str) -> None:
        self.messages.remove(self._visible(message_id))
        self.recorded()

    def _pop_message(self) -> None:
        if self.messages:
            self.messages.pop()
            self.recorded()

    def _clear_history(self) -> None:
        if self.messages:
            self.messages.clear()
            self.recorded()

    def _set_history(self, messages: Sequence[Mapping[str, Any]]) -> None:
        if len(messages) == len(self.messages) and all(map(_is_said, self.messages, messages)):
            return
        self.messages.clear()
        self._bring(messages)
        if messages:
            self.state["last_message_at"] = self.clock
        self.recorded()
        for message in messages:
            used = (bare([Said("add_message", (), message)]), self.version)
            self.keys.setdefault(("message", message["message_id"]), used)

    def _compact_history(self, summary: Any, keep_last: int, made: str | None = None) -> None:
        kept = [message for message in self.messages if message in window(self.messages, keep_last)]
        if len(kept) < len(self.messages):
            self.messages.clear()
            self._bring([{"message_id": made, "role": "system", "content": summary}])
            self.messages.extend(kept)
            self.recorded()

    # --- data ---------------------------------------------------------------------------------------------------------

    def _collect(self, values: Mapping[str, Any]) -> None:
        changed = _changed(self.state["data"], values)
        if changed:
            self.state["data"].update(changed)
            if self.state["current_route"] is not None:
                by_route = self.state["data_by_route"].setdefault(self.state["current_route"], {})
                by_route.update(deepcopy(changed))
            self.recorded()

    def _discard(self, *keys: str) -> None:
        present = [key for key in keys if key in self.state["data"]]
        if present:
            by_route = {route: _without(data, present) for route, data in self.state["data_by_route"].items()}
            self.state["data_by_route"] = {route: data for route, data in by_route.items() if data}
            self.state["data"] = _without(self.state["data"], present)
            self.recorded()

    def _clear_data(self) -> None:
        if self.state["data"]:
            self.state.update(data={}, data_by_route={})
            self.recorded()

    def _set_context(self, values: Mapping[str, Any], unset: Sequence[str] = ()) -> None:
        self._patch("context", values, unset)

    def _set_metadata(self, values: Mapping[str, Any], unset: Sequence[str] = ()) -> None:
        self._patch("metadata", values, unset)

    def _patch(self, name: str, values: Mapping[str, Any], unset: Sequence[str]) -> None:
        changed = _changed(self.state[name], values)
        gone = [key for key in unset if key in self.state[name] and key not in values]
        if changed or gone:
            self.state[name] = _without({**self.state[name], **changed}, gone)
            self.recorded()

    # --- progress -----------------------------------------------------------------------------------------------------

    def _leave(self, *, completed: bool) -> None:
        if self.state["current_route"] is not None:
            self.state["route_history"][-1].update(exited_at=self.clock, completed=completed)
        self._leave_step()
        self.state.update(current_route=None, current_step=None)

    def _leave_step(self) -> None:
        steps = self.now["steps"]
        if steps and steps[-1]["exited_at"] is None:
            steps[-1]["exited_at"] = self.clock

    def _enter_route(self, route: str, title: str | None = None, **_: Any) -> None:
        if route != self.state["current_route"]:
            self._leave(completed=False)
            visit = {"route": route, "title": title, "entered_at": self.clock, "exited_at": None, "completed": False}
            self.state["route_history"].append(visit)
            self.state.update(current_route=route, route_count=self.state["route_count"] + 1)
            planned = self.state["pending_transition"]
            if planned is not None and planned["route"] == route:
                self.state["pending_transition"] = None
            self.recorded()

    def _exit_route(self, *, completed: bool = False) -> None:
        if self.state["current_route"] is not None:
            self._leave(completed=completed)
            self.recorded()

    def _enter_step(self, step: str, description: str | None = None) -> None:
        if step != self.state["current_step"]:
            self._leave_step()
            visit = {"step": step, "description": description, "route": self.state["current_route"]}
            self.now["steps"].append({**visit, "entered_at": self.clock, "exited_at": None})
            self.state["current_step"] = step
            self.recorded()

    def _plan_transition(self, route: str, condition: str | None = None, reason: str | None = None) -> None:
        planned = {"route": route, "condition": condition, "reason": reason}
        if planned != self.state["pending_transition"]:
            self.state["pending_transition"] = planned
            self.recorded()

    def _cancel_transition(self) -> None:
        if self.state["pending_transition"] is not None:
            self.state["pending_transition"] = None
            self.recorded()

    def _call_tool(self, name: str, _: Any, call_id: str | None = None, made: str | None = None) -> None:
        self.now["calls"][call_id or made] = name
        self.state["tool_call_count"] += 1
        self.recorded()

    def _return_tool(self, call_id: str, _: Any, **__: Any) -> None:
        if call_id not in self.now["calls"]:
            raise Refused(InvalidInput)
        self.recorded()

    def _run(self, run_id: str | None) -> dict[str, Any] | None:
        return next((run for run in self.now["runs"] if run["run_id"] == run_id), None)

    def _start_run(self, run_id: str | None = None, made: str | None = None, **details: Any) -> None:
        run = self._run(run_id or made)
        if run is None:
            ends = dict.fromkeys(("result", "error", "usage", "finished_at"))
            new = {"run_id": run_id or made, "status": "running", "details": details, "started_at": self.clock}
            self.now["runs"].append({**new, **ends})
            self.recorded()
        elif not same(run["details"], details):
            raise Refused(RuleViolation)

    def _finish_run(self, run_id: str, **ends: Any) -> None:
        run = self._run(run_id)
        if run is None:
            raise Refused(InvalidInput)
        new = {"result": None, "error": None, "usage": None, **ends}
        if run["status"] == "running":
            run.update(new, finished_at=self.clock)
            self.recorded()
        elif not all(same(run[name], value) for name, value in new.items()):
            raise Refused(RuleViolation)

    # --- life ---------------------------------------------------------------------------------------------------------

    def _set_status(self, status: str, **_: Any) -> None:
        if status != self.state["status"]:
            self.state.update(status=status, completed_at=self.clock if status == "completed" else None)
            self.recorded()

    def _assign_owner(self, user_id: str) -> None:
        if user_id != self.state["user_id"]:
            self.state["user_id"] = user_id
            self.recorded()


def _is_said(message: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Return whether a visible message is the one that is given."""
    fields = ["message_id", "role", "content", "name", "tool_calls", "tool_call_id", "metadata", "route", "step"]
    fields += ["occurred_at"] if given.get("occurred_at") else []
    return all(same(message[name], given.get(name)) for name in fields)


def _changed(old: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in old or not same(old[key], value)}


def _without(values: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}
