"""Session: what an application holds during a conversation. A handle is cheap; several may exist for one session.

In order: what a session is, messages, data, progress, life, the past. How it writes is in writing.py and decider.py.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, Unpack

from msgspec.structs import replace

from turnlog import inputs, past
from turnlog.decider import Loaded
from turnlog.domain import commands as c
from turnlog.domain.commands import fingerprint
from turnlog.domain.errors import CorruptLog, InvalidInput, SessionGone, SessionNotFound
from turnlog.domain.events import Json, MessageRemoved, ReplacementMessage
from turnlog.domain.mapper import StreamRow
from turnlog.domain.values import (
    Diff,
    Message,
    Receipt,
    RecordedEvent,
    RouteVisit,
    Run,
    SessionState,
    Step,
    StepVisit,
)
from turnlog.inputs import WriteOptions
from turnlog.projections import progress
from turnlog.projections.history import (
    LARGEST_PAGE,
    Occurrence,
    everything,
    living,
    messages_back,
    occurrences_back,
    pages_back,
    require_living,
    visible_message,
)
from turnlog.projections.history import TOPICS as HISTORY_TOPICS
from turnlog.projections.window import window
from turnlog.writing import SessionWriter, Turn

if TYPE_CHECKING:
    from pydantic import BaseModel

    from turnlog.data_model import DataModel

T = TypeVar("T")
Moment: TypeAlias = int | datetime
"""A version, or an aware time."""


class Home(Protocol):
    """What a session asks of the store it came from."""

    def delete_session(self, writer: SessionWriter, options: WriteOptions) -> Receipt:
        """Write the tombstone and destroy the content."""
        ...

    def fork_session(
        self, writer: SessionWriter, session_id: str | None, version: int, model: "DataModel | None"
    ) -> "Session":
        """Copy events 1..version into a new session."""
        ...

    def reset_session(
        self, writer: SessionWriter, options: WriteOptions, model: "DataModel | None", *, preserve_history: bool
    ) -> "Session":
        """Start the successor and archive this session."""
        ...


class Session:
    """One conversation. Make it with ``store.session(…)`` or ``store.get(…)``.

    What its properties return is as of the handle's last read or write (``refresh()`` reads again) and is a copy.
    Every write raises ``SessionGone`` on a deleted session, ``SessionClosed`` where the status forbids it,
    ``InvalidInput`` for a bad value, ``ConcurrencyConflict`` where ``expected_version`` does not hold, and
    ``StoreError`` where the storage fails; then nothing was written. A write that would change nothing writes no event
    and returns the receipt of what is there. The keywords every write takes are those of ``WriteOptions``.
    """

    def __init__(
        self, writer: SessionWriter, home: Home, *, created: bool = False, data_model: "DataModel | None" = None
    ) -> None:
        self._writer = writer
        self._home = home
        self._model = data_model
        self.created = created
        """Whether the call that gave this handle created the session."""

    def __repr__(self) -> str:
        state = self._writer.loaded.state
        return f"<Session {state.id!r} {state.status} version={state.version}>"

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The session's id."""
        return self._writer.loaded.state.id

    @property
    def user_id(self) -> str | None:
        """The owner."""
        return self._writer.current.user_id

    @property
    def agent(self) -> str | None:
        """The agent's name, as given at the start."""
        return self._writer.current.agent

    @property
    def version(self) -> int:
        """The number of committed events."""
        return self._writer.loaded.state.version

    @property
    def status(self) -> str:
        """``active``, ``paused``, ``completed``, ``abandoned``, ``failed``, ``expired`` or ``archived``."""
        return self._writer.current.status

    @property
    def state(self) -> SessionState:
        """Everything but the messages; a copy."""
        return deepcopy(self._writer.current)

    @property
    def data(self) -> dict[str, Json]:
        """The collected data; a copy."""
        return deepcopy(self._writer.current.data)

    def data_as(self) -> "BaseModel":
        """Return the data as the ``data_model`` given to ``store.session``.

        Raises:
            InvalidInput: no model was given, or required fields are missing.
        """
        return self._require_model().instance(self._writer.current.data)

    @property
    def missing(self) -> tuple[str, ...]:
        """The required fields of the ``data_model`` that are still lacking.

        Raises:
            InvalidInput: no model was given.
        """
        return self._require_model().missing(self._writer.current.data)

    def refresh(self) -> "Session":
        """Read what others wrote; return this handle.

        Raises:
            SessionGone: it was deleted.
        """
        self._newest()
        return self

    def turn(self, **options: Unpack[WriteOptions]) -> Turn:
        """Commit everything said inside ``with session.turn():`` as one append, or not at all.

        Inside, this handle's reads see what was said. If somebody else writes meanwhile, all of it is decided again.
        Nested turns join; a turn belongs to one thread. The keywords hold for all inside; a ``command_id`` makes the
        whole turn idempotent.
        """
        return self._writer.open_turn(options)

    # --- messages -----------------------------------------------------------------------------------------------------

    def add_message(
        self,
        role: str,
        content: Json,
        *,
        name: str | None = None,
        tool_calls: Sequence[Mapping[str, Json]] | None = None,
        tool_call_id: str | None = None,
        message_id: str | None = None,
        metadata: Mapping[str, Json] | None = None,
        **options: Unpack[WriteOptions],
    ) -> Receipt:
        """Add a message. A ``message_id`` that is given makes it idempotent, at any distance in the past.

        ``role``: user, assistant, system, tool or developer. ``content``: text, a list of parts, or None.

        Raises:
            IdempotencyConflict: this ``message_id`` was used for another message.
        """
        command = c.AddMessage(
            self._writer.decider.new_id() if message_id is None else inputs.identifier("message_id", message_id),
            inputs.role("role", role),
            inputs.content("content", content),
            None if name is None else inputs.text("name", name),
            None if tool_calls is None else _tool_calls(tool_calls),
            None if tool_call_id is None else inputs.identifier("tool_call_id", tool_call_id),
            None if metadata is None else inputs.json_object("metadata", metadata),
        )
        made = ("message_id", command.message_id) if message_id is None else None
        receipt = self._writer.say(command, options, message_id=message_id, made=made)
        return replace(receipt, message_id=receipt.message_id or command.message_id)

    def add_messages(
        self, messages: Sequence[Mapping[str, Json] | Message], **options: Unpack[WriteOptions]
    ) -> Receipt:
        """Add several messages, all or none; each a dict with the fields of ``add_message``, or a ``Message``."""
        given = _messages(messages)
        with self.turn(**options) as turn:
            for item in given:
                said: WriteOptions = {} if item.occurred_at is None else {"occurred_at": item.occurred_at}
                self.add_message(
                    item.role,
                    item.content,
                    name=item.name,
                    tool_calls=item.tool_calls,
                    tool_call_id=item.tool_call_id,
                    message_id=item.message_id or None,
                    metadata=item.metadata,
                    **said,
                )
        return turn.receipt if self._writer.turn is None else Receipt(session_id=self.id)

    def message(self, message_id: str) -> Message | None:
        """Return the visible message with this id, or None."""
        return visible_message(self._messages(), inputs.identifier("message_id", message_id))

    def history(
        self,
        *,
        last: int | None = None,
        before: str | None = None,
        at: Moment | None = None,
        max_tokens: int | None = None,
        count: Callable[[Message], int] | None = None,
        include_removed: bool = False,
        exact: bool = False,
    ) -> list[Message]:
        """Return the visible messages, oldest first; always reads the store.

        ``last``: only the newest n, reaching back to the call where they would begin with a tool's result
        (``exact=True``: just n). ``max_tokens`` with ``count`` (message → tokens): as many of the newest as fit, a
        window that would begin with a tool's result begins later. ``before``: those older than this message.
        ``at``: as it was at a version or an aware time. ``include_removed``: everything ever said.

        Raises:
            InvalidInput: ``before`` names no such message, ``at`` no version.
        """
        _check_window(last, max_tokens, count)
        with self._writer.decider.watch.doing("query", query="history"):
            if include_removed:
                messages = reversed(everything(self._forth(HISTORY_TOPICS, at)))
            else:
                messages = self._messages(at, first_page=LARGEST_PAGE if last is None or before is not None else last)
            if before is not None:
                messages = _before(messages, inputs.identifier("before", before))
            return window(messages, last=last, max_tokens=max_tokens, count=count, exact=exact)

    def edit_message(self, message_id: str, content: Json, **options: Unpack[WriteOptions]) -> Receipt:
        """Give a visible message another content; the original stays in the log."""
        command = c.EditMessage(inputs.identifier("message_id", message_id), inputs.content("content", content))
        return self._writer.say(command, options)

    def remove_message(self, message_id: str, **options: Unpack[WriteOptions]) -> Receipt:
        """Take a visible message out of the history; it stays in the log."""
        command = c.RemoveMessage(inputs.identifier("message_id", message_id))
        return replace(self._writer.say(command, options), message_id=message_id)

    def pop_message(self, **options: Unpack[WriteOptions]) -> Message | None:
        """Take the last visible message out of the history and return it, or None if there is none.

        Repeated under its ``command_id`` it returns the message that it took the first time.
        """
        if self._writer.turn is not None:
            return self._pop_in_turn(options)
        receipt = self._writer.say(c.PopMessage(), options)
        if receipt.message_id is not None:
            return self._ever(receipt.message_id)
        if not receipt.event_ids or receipt.version is None:
            return None
        removal = next(past.events(self._writer.decider, self.id, receipt.version - 1, receipt.version)).event
        before = self._messages(receipt.version - 1, first_page=8)
        return visible_message(before, removal.message_id) if isinstance(removal, MessageRemoved) else None

    def _pop_in_turn(self, options: WriteOptions) -> Message | None:
        """Take the message that is returned, and nothing else, though others may write before the turn is over."""
        last = next(self._messages(first_page=8), None)
        taken = c.SetMetadata({}) if last is None else c.RemoveMessage(last.message_id)
        made = ("message_id", "" if last is None else last.message_id)
        message_id = self._writer.say(taken, options, made=made, bare=c.PopMessage()).message_id
        if message_id == "":
            return None
        return last if message_id in (None, made[1]) else self._ever(message_id)

    def _ever(self, message_id: str | None) -> Message | None:
        """Return a message, though it may not be visible any more."""
        said = reversed(everything(self._forth(HISTORY_TOPICS, None)))
        return next((message for message in said if message.message_id == message_id), None)

    def clear_history(self, **options: Unpack[WriteOptions]) -> Receipt:
        """Make the history empty; the messages stay in the log."""
        return self._writer.say(c.ClearHistory(), options)

    def set_history(self, messages: Sequence[Mapping[str, Json] | Message], **options: Unpack[WriteOptions]) -> Receipt:
        """Replace the visible history by these messages (dicts or ``Message``).

        A ``message_id`` that is given counts as said: ``add_message`` under it adds nothing, or is a conflict.
        """
        given = _messages(messages)
        new_id = self._writer.decider.new_id
        made = tuple(item if item.message_id else replace(item, message_id=new_id()) for item in given)
        introduces = [(item.message_id, fingerprint((added(item),))) for item in given if item.message_id]
        return self._writer.say(c.SetHistory(made), options, bare=c.SetHistory(given), introduces=introduces)

    def compact_history(self, summary: Json, keep_last: int, **options: Unpack[WriteOptions]) -> Receipt:
        """Let one system message, ``summary``, stand for all but the newest ``keep_last`` messages.

        Keeps more where it would otherwise part a tool's result from its call. The originals stay in the log.
        """
        content = inputs.content("summary", summary)
        keep = inputs.number("keep_last", keep_last, least=0)
        command = c.CompactHistory(self._writer.decider.new_id(), content, keep)
        receipt = self._writer.say(command, options, made=("message_id", command.message_id))
        nothing = receipt.version is not None and not receipt.event_ids
        return receipt if nothing else replace(receipt, message_id=receipt.message_id or command.message_id)

    # --- data ---------------------------------------------------------------------------------------------------------

    def collect(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> Receipt:
        """Merge values into the data, key by key (nested values are replaced).

        The keywords of a write (``actor``, ``command_id``, …) are not data here; a key of such a name is given in
        ``values``. With a ``data_model`` every field is checked on its own.
        """
        options = _take_options(more)
        given = {**inputs.mapping("values", {} if values is None else values), **more}
        if self._model is not None:
            given = self._model.values("values", given)
        return self._writer.say(c.Collect(inputs.json_object("values", given)), options)

    def discard(self, *keys: str, **options: Unpack[WriteOptions]) -> Receipt:
        """Remove keys from the data, also from ``data_by_route``; missing ones are no error."""
        return self._writer.say(c.Discard(inputs.keys("keys", keys)), options)

    def clear_data(self, **options: Unpack[WriteOptions]) -> Receipt:
        """Remove all data."""
        return self._writer.say(c.ClearData(), options)

    def set_context(
        self, values: Mapping[str, Json] | None = None, *, unset: Sequence[str] = (), **options: Unpack[WriteOptions]
    ) -> Receipt:
        """Set keys of the context; a key set to null stays null, ``unset`` removes."""
        command = c.SetContext(
            inputs.json_object("values", {} if values is None else values), inputs.keys("unset", unset)
        )
        return self._writer.say(command, options)

    def set_metadata(
        self, values: Mapping[str, Json] | None = None, *, unset: Sequence[str] = (), **options: Unpack[WriteOptions]
    ) -> Receipt:
        """Set keys of the metadata; a key set to null stays null, ``unset`` removes."""
        command = c.SetMetadata(
            inputs.json_object("values", {} if values is None else values), inputs.keys("unset", unset)
        )
        return self._writer.say(command, options)

    # --- progress -----------------------------------------------------------------------------------------------------

    def enter_route(
        self, route: str, *, title: str | None = None, reason: str | None = None, **options: Unpack[WriteOptions]
    ) -> Receipt:
        """Enter a route: ends the visit before it, clears the step."""
        return self._writer.say(
            c.EnterRoute(_id("route", route), _text("title", title), _text("reason", reason)), options
        )

    def exit_route(self, *, completed: bool = False, **options: Unpack[WriteOptions]) -> Receipt:
        """Leave the current route."""
        return self._writer.say(c.ExitRoute(inputs.flag("completed", completed)), options)

    def enter_step(self, step: str, *, description: str | None = None, **options: Unpack[WriteOptions]) -> Receipt:
        """Enter a step."""
        return self._writer.say(c.EnterStep(_id("step", step), _text("description", description)), options)

    def plan_transition(
        self, route: str, *, condition: str | None = None, reason: str | None = None, **options: Unpack[WriteOptions]
    ) -> Receipt:
        """Note the route to go to next; entering it takes the note away."""
        command = c.PlanTransition(_id("route", route), _text("condition", condition), _text("reason", reason))
        return self._writer.say(command, options)

    def cancel_transition(self, **options: Unpack[WriteOptions]) -> Receipt:
        """Drop the planned transition."""
        return self._writer.say(c.CancelTransition(), options)

    def call_tool(
        self, name: str, arguments: Json, *, call_id: str | None = None, **options: Unpack[WriteOptions]
    ) -> Receipt:
        """Note that a tool is called; the receipt has the ``call_id``, which is no idempotency key."""
        made = call_id is None
        id_ = self._writer.decider.new_id() if call_id is None else _id("call_id", call_id)
        command = c.CallTool(id_, inputs.text("name", name), inputs.json_value("arguments", arguments))
        receipt = self._writer.say(command, options, made=("call_id", id_) if made else None)
        return replace(receipt, call_id=receipt.call_id or id_)

    def return_tool(
        self,
        call_id: str,
        content: Json,
        *,
        name: str | None = None,
        error: str | None = None,
        **options: Unpack[WriteOptions],
    ) -> Receipt:
        """Note what a tool returned: it belongs to the latest earlier call with this id.

        Raises:
            InvalidInput: there is no such call.
        """
        command = c.ReturnTool(
            _id("call_id", call_id), inputs.json_value("content", content), _text("name", name), _text("error", error)
        )
        return replace(self._writer.say(command, options), call_id=call_id)

    def start_run(self, run_id: str | None = None, **details: Any) -> Receipt:
        """Note that a run of the agent starts; the receipt has the ``run_id``. ``details`` are any JSON.

        The keywords of a write (``actor``, ``command_id``, …) are not details.

        Raises:
            RuleViolation: this run was already started with other details.
        """
        options = _take_options(details)
        id_ = self._writer.decider.new_id() if run_id is None else _id("run_id", run_id)
        command = c.StartRun(id_, inputs.json_object("details", details))
        receipt = self._writer.say(command, options, made=("run_id", id_) if run_id is None else None)
        return replace(receipt, run_id=receipt.run_id or id_)

    def finish_run(
        self,
        run_id: str,
        *,
        status: str,
        result: Json = None,
        error: str | None = None,
        usage: Mapping[str, Json] | None = None,
        **options: Unpack[WriteOptions],
    ) -> Receipt:
        """Note how a run ended: ``completed``, ``failed``, ``interrupted`` or ``cancelled``.

        Raises:
            InvalidInput: there is no such run.
            RuleViolation: it has already ended otherwise.
        """
        command = c.FinishRun(
            _id("run_id", run_id),
            inputs.run_status("status", status),
            inputs.json_value("result", result),
            _text("error", error),
            None if usage is None else inputs.json_object("usage", usage),
        )
        return replace(self._writer.say(command, options), run_id=run_id)

    def routes(self, *, at: Moment | None = None) -> list[RouteVisit]:
        """Return every visit to a route, oldest first."""
        return progress.routes(self._forth(progress.ROUTE_TOPICS, at))

    def steps(self, *, at: Moment | None = None) -> list[StepVisit]:
        """Return every stay on a step, oldest first."""
        return progress.steps(self._forth(progress.STEP_TOPICS, at))

    def runs(self, *, at: Moment | None = None) -> list[Run]:
        """Return every run, oldest first."""
        return progress.runs(self._forth(progress.RUN_TOPICS, at))

    # --- life ---------------------------------------------------------------------------------------------------------

    def set_status(self, status: str, *, reason: str | None = None, **options: Unpack[WriteOptions]) -> Receipt:
        """Set the status; ``"active"`` is ``reopen``."""
        return self._writer.say(c.SetStatus(inputs.status("status", status), _text("reason", reason)), options)

    def pause(self, *, reason: str | None = None, **options: Unpack[WriteOptions]) -> Receipt:
        """Pause; the next message makes the session active again."""
        return self.set_status("paused", reason=reason, **options)

    def complete(self, *, reason: str | None = None, **options: Unpack[WriteOptions]) -> Receipt:
        """Close as completed."""
        return self.set_status("completed", reason=reason, **options)

    def abandon(self, *, reason: str | None = None, **options: Unpack[WriteOptions]) -> Receipt:
        """Close as abandoned."""
        return self.set_status("abandoned", reason=reason, **options)

    def fail(self, *, reason: str | None = None, **options: Unpack[WriteOptions]) -> Receipt:
        """Close as failed."""
        return self.set_status("failed", reason=reason, **options)

    def expire(self, *, reason: str | None = None, **options: Unpack[WriteOptions]) -> Receipt:
        """Close as expired."""
        return self.set_status("expired", reason=reason, **options)

    def archive(self, *, reason: str | None = None, **options: Unpack[WriteOptions]) -> Receipt:
        """Put away, reversibly."""
        return self.set_status("archived", reason=reason, **options)

    def reopen(self, *, reason: str | None = None, **options: Unpack[WriteOptions]) -> Receipt:
        """Make a closed or paused session active."""
        return self.set_status("active", reason=reason, **options)

    def assign_owner(self, user_id: str, **options: Unpack[WriteOptions]) -> Receipt:
        """Give the session to a user."""
        return self._writer.say(c.AssignOwner(_id("user_id", user_id)), options)

    def delete(self, **options: Unpack[WriteOptions]) -> Receipt:
        """Delete for ever: one transaction writes the tombstone and destroys every event's content.

        ``receipt.erasure`` says what may still physically hold bytes; ``store.scrub()`` finishes.
        """
        self._require_no_turn("delete")
        return self._home.delete_session(self._writer, inputs.options(options))

    def reset(self, *, preserve_history: bool = False, **options: Unpack[WriteOptions]) -> "Session":
        """Archive this session and return a new one that continues it, with its owner and, if wanted, its messages."""
        self._require_no_turn("reset")
        preserve = inputs.flag("preserve_history", preserve_history)
        return self._home.reset_session(self._writer, inputs.options(options), self._model, preserve_history=preserve)

    def fork(self, session_id: str | None = None, *, at: Moment | None = None) -> "Session":
        """Return a new active session that holds copies of this one's events, all or those up to ``at``.

        It belongs to this session's owner of now, so that erasing a user reaches both. Message ids and the times things
        occurred stay; erasing either leaves the other.

        Raises:
            InvalidInput: there is no such version, or ``session_id`` is taken.
        """
        self._require_no_turn("fork")
        newest = self._newest().state.version
        version = newest if at is None else self._version(at, newest)
        if version == 0:
            raise InvalidInput("at", "expected a version of at least 1")
        new_id = inputs.optional(inputs.identifier, "session_id", session_id)
        return self._home.fork_session(self._writer, new_id, version, self._model)

    # --- the past -----------------------------------------------------------------------------------------------------

    def at(self, version: int | None = None, time: datetime | None = None) -> SessionState:
        """Return the state as it was right after a version, or at a time (the session's own, ``recorded_at``).

        Raises:
            InvalidInput: neither or both are given, or there is no such version.
        """
        if (version is None) == (time is None):
            raise InvalidInput("version", "expected either a version or a time")
        newest = self._newest().state.version
        moment = version if version is not None else inputs.when("time", time)
        decider = self._writer.decider
        return decider.at_version(self.id, past.version_at(decider, self.id, moment, newest, "version"))

    def events(self, after: int = 0, last: int | None = None) -> Iterator[RecordedEvent]:
        """Iterate the recorded events, oldest first: those after a version, or of these only the last n."""
        inputs.number("after", after, least=0)
        newest = self._newest().state.version
        if last is not None:
            after = max(after, newest - inputs.number("last", last, least=1))
        return past.events(self._writer.decider, self.id, after, newest)

    def replay(self) -> Iterator[Step]:
        """Iterate every event with the state before and after it."""
        return past.replay(self._writer.decider, self.id, self._newest().state.version)

    def diff(self, from_version: int, to_version: int) -> Diff:
        """Return what changed in the state between two versions."""
        newest = self._newest().state.version
        decider = self._writer.decider
        versions = (("from_version", from_version), ("to_version", to_version))
        before, after = (
            past.version_at(decider, self.id, inputs.number(f, v, least=0), newest, f) for f, v in versions
        )
        return past.compare(decider.at_version(self.id, before), decider.at_version(self.id, after))

    # ------------------------------------------------------------------------------------------------------------------

    def _newest(self) -> Loaded:
        writer = self._writer
        newest = writer.decider.load(self.id, writer.loaded)
        if newest.state.deleted:
            raise SessionGone(f"session {self.id!r} was deleted")
        if newest.state.version == 0:
            raise SessionNotFound(self.id)
        writer.loaded = newest
        return newest

    def _version(self, moment: Moment, newest: int) -> int:
        return past.version_at(self._writer.decider, self.id, moment, newest)

    def _messages(self, at: Moment | None = None, *, first_page: int = 64) -> Iterator[Message]:
        """Iterate the visible messages, newest first."""
        pages, pending = self._pages(at, first_page)
        decider = self._writer.decider
        return self._unless_gone(messages_back(decider.codec, decider.stream(self.id), pages, pending))

    def _forth(self, topics: frozenset[str], at: Moment | None) -> list[Occurrence]:
        """Return the events of these topics, oldest first."""
        pages, pending = self._pages(at, LARGEST_PAGE)
        decider = self._writer.decider
        found = occurrences_back(decider.codec, decider.stream(self.id), pages, topics, pending)
        return list(self._unless_gone(found))[::-1]

    def _unless_gone(self, found: Iterator[T]) -> Iterator[T]:
        """Yield what is found; where content is missing because the session was deleted meanwhile, say that instead."""
        try:
            yield from found
        except CorruptLog:
            self._newest()
            raise

    def _pages(self, at: Moment | None, first_page: int) -> tuple[Iterator[list[StreamRow]], Sequence[Occurrence]]:
        """Return the stream's rows newest first, in pages, and what the open turn adds to them."""
        writer = self._writer
        stream, recorder = writer.decider.stream(self.id), writer.decider.recorder
        if at is not None:
            upto = self._version(at, self._newest().state.version)
            return pages_back(recorder, stream, upto=upto, first_page=first_page), ()
        if writer.turn is not None:
            require_living(recorder, stream)
            return pages_back(recorder, stream, upto=self.version, first_page=first_page), deepcopy(writer.pending)
        return living(self.id, pages_back(recorder, stream, first_page=first_page)), ()

    def _require_model(self) -> "DataModel":
        if self._model is None:
            raise InvalidInput("data_model", "expected one to be given to store.session(…, data_model=…)")
        return self._model

    def _require_no_turn(self, what: str) -> None:
        if self._writer.turn is not None:
            raise InvalidInput("turn", f"{what} is an append of its own; end the turn first")


def added(message: ReplacementMessage | Message) -> c.AddMessage:
    """Return the command that says a message that was given, or was said elsewhere."""
    return c.AddMessage(
        message.message_id,
        message.role,
        message.content,
        message.name,
        message.tool_calls,
        message.tool_call_id,
        message.metadata,
    )


def _id(field: str, value: object) -> str:
    return inputs.identifier(field, value)


def _text(field: str, value: str | None) -> str | None:
    return None if value is None else inputs.text(field, value)


def _take_options(given: dict[str, Any]) -> WriteOptions:
    """Take the keywords of a write out of ``given``."""
    return inputs.options({name: given.pop(name) for name in inputs.OPTIONS & given.keys()})


def _tool_calls(value: object) -> list[dict[str, Json]]:
    from turnlog import structures

    return structures.tool_calls("tool_calls", list(inputs.sequence("tool_calls", value)))


def _messages(value: object) -> tuple[ReplacementMessage, ...]:
    from turnlog import structures

    return structures.messages("messages", value, str)


def _check_window(last: object, max_tokens: object, count: object) -> None:
    if last is not None:
        inputs.number("last", last, least=0)
    if max_tokens is not None:
        inputs.number("max_tokens", max_tokens, least=0)
        if not callable(count):
            raise InvalidInput("count", "expected a callable that counts a message's tokens, with max_tokens")


def _before(messages: Iterator[Message], message_id: str) -> Iterator[Message]:
    for message in messages:
        if message.message_id == message_id:
            return messages
    raise InvalidInput("before", f"no visible message {message_id!r} in this session")
