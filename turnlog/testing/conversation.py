"""A session as a store drives it, in plain lists: what a command names is looked up here, then ``decide`` is asked."""

from turnlog.domain import commands as c
from turnlog.domain import events as e
from turnlog.domain.commands import Command, Found, FoundCall, FoundMessage, FoundRun
from turnlog.domain.errors import TurnlogError
from turnlog.domain.events import Event
from turnlog.domain.session import decide, evolve, initial
from turnlog.testing.scenario import at


class Conversation:
    """Everything said so far: the events, the state, and the messages, calls and runs that state does not hold."""

    def __init__(self) -> None:
        self.state = initial("default", "s-1")
        self.events: list[Event] = []
        self.messages: list[FoundMessage] = []
        self._used: set[str] = set()
        self._calls: dict[str, FoundCall] = {}
        self._runs: dict[str, FoundRun] = {}

    def say(self, command: Command) -> tuple[Event, ...]:
        """Do it, and return its events. What is forbidden, and a message id used before, changes nothing."""
        if isinstance(command, (c.AddMessage, c.CompactHistory)) and command.message_id in self._used:
            return ()
        try:
            events = decide(self.state, command, self.found(command))
        except TurnlogError:
            return ()
        for event in events:
            self._note(event)
            self.state = evolve(self.state, event, at(self.state.version + 1))
        self.events += events
        return events

    def found(self, command: Command) -> Found:
        """Look up what the command names."""
        match command:
            case c.EditMessage(message_id) | c.RemoveMessage(message_id):
                return Found(message=next((m for m in self.messages if m.message_id == message_id), None))
            case c.PopMessage():
                return Found(message=self.messages[-1] if self.messages else None)
            case c.CompactHistory(_, _, keep_last):
                return Found(kept=min(keep_last, len(self.messages)))
            case c.ReturnTool(call_id):
                return Found(call=self._calls.get(call_id))
            case c.StartRun(run_id) | c.FinishRun(run_id):
                return Found(run=self._runs.get(run_id))
            case _:
                return Found()

    def _note(self, event: Event) -> None:
        messages = self.messages
        match event:
            case e.MessageAdded():
                self._used.add(event.message_id)
                messages.append(FoundMessage(event.message_id, event.content))
            case e.MessageEdited():
                place = [message.message_id for message in messages].index(event.message_id)
                messages[place] = FoundMessage(event.message_id, event.content)
            case e.MessageRemoved():
                messages[:] = [message for message in messages if message.message_id != event.message_id]
            case e.HistoryCleared():
                messages.clear()
            case e.HistoryReplaced():
                messages[:] = [FoundMessage(message.message_id, message.content) for message in event.messages]
                self._used |= {message.message_id for message in event.messages}
            case e.HistoryCompacted():
                kept = messages[len(messages) - event.kept :]
                messages[:] = [FoundMessage(event.message_id, event.summary), *kept]
                self._used.add(event.message_id)
            case e.ToolCalled():
                self._calls[event.call_id] = FoundCall(event.name)
            case e.RunStarted():
                self._runs[event.run_id] = FoundRun(event.details)
            case e.RunFinished():
                end = c.FinishRun(event.run_id, event.status, event.result, event.error, event.usage)
                self._runs[event.run_id] = FoundRun(self._runs[event.run_id].details, end)
            case _:
                pass
