"""Random histories that the rules allow, and a model of what is visible after them."""

from dataclasses import dataclass, field

from hypothesis import strategies as st

from tests.projections.log import at
from turnlog.domain import commands as c
from turnlog.domain import events as e
from turnlog.domain.commands import Command, Found, FoundCall, FoundMessage, FoundRun
from turnlog.domain.errors import TurnlogError
from turnlog.domain.events import Event, Json
from turnlog.domain.session import decide, evolve, initial
from turnlog.domain.values import STATUSES, SessionState

IDS = st.sampled_from([f"m{n}" for n in range(6)])
NAMES = st.sampled_from(["a", "b", "c"])
CONTENT = st.sampled_from(["hello", "", None])

MESSAGES = st.builds(c.AddMessage, IDS, st.just("user"), CONTENT)
REPLACEMENTS = st.builds(e.ReplacementMessage, message_id=IDS, role=st.just("user"), content=CONTENT)
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    MESSAGES,
    MESSAGES,
    st.builds(c.EditMessage, IDS, CONTENT),
    st.builds(c.RemoveMessage, IDS),
    st.just(c.PopMessage()),
    st.just(c.ClearHistory()),
    st.builds(c.SetHistory, st.lists(REPLACEMENTS, max_size=4).map(tuple)),
    st.builds(c.CompactHistory, IDS, CONTENT, st.integers(0, 4)),
    st.builds(c.Collect, st.dictionaries(NAMES, st.integers(), max_size=2)),
    st.builds(c.EnterRoute, NAMES),
    st.builds(c.ExitRoute, st.booleans()),
    st.builds(c.EnterStep, NAMES),
    st.builds(c.CallTool, IDS, NAMES, st.none()),
    st.builds(c.ReturnTool, IDS, CONTENT),
    st.builds(c.StartRun, IDS, st.just({})),
    st.builds(c.SetStatus, st.sampled_from(sorted(STATUSES))),
    st.builds(c.AssignOwner, NAMES),
    st.builds(c.StartSession, user_id=st.none() | NAMES),
)
STARTS = st.builds(c.StartSession, user_id=st.none() | NAMES, agent=st.none() | NAMES)


@dataclass
class Shown:
    """A visible message."""

    message_id: str
    version: int
    item: int
    content_version: int
    content: Json

    def row(self) -> tuple[str, int, int, int]:
        """Return it as ``Log.messages`` does."""
        return self.message_id, self.version, self.item, self.content_version


@dataclass
class History:
    """A session as it came to be: its events, the state after them, and the messages then visible, in order."""

    state: SessionState
    events: list[Event] = field(default_factory=list[Event])
    visible: list[Shown] = field(default_factory=list[Shown])

    def obey(self, command: Command) -> None:
        """Add what the command causes; nothing if the rules refuse it."""
        try:
            events = decide(self.state, command, self._find(command))
        except TurnlogError:
            return
        for event in events:
            self.state = evolve(self.state, event, at(self.state.version + 1))
            self.events.append(event)
            self._show(event, self.state.version)

    def _find(self, command: Command) -> Found:
        match command:
            case c.EditMessage(message_id) | c.RemoveMessage(message_id):
                shown = self._latest(message_id)
                return Found(message=None if shown is None else FoundMessage(shown.message_id, 0))
            case c.PopMessage() if self.visible:
                return Found(message=FoundMessage(self.visible[-1].message_id, 0))
            case c.CompactHistory(_, _, keep_last):
                return Found(kept=min(keep_last, len(self.visible)))
            case c.ReturnTool():
                return Found(call=FoundCall("tool"))
            case c.StartRun(_, details):
                return Found(run=FoundRun(details))
            case _:
                return Found()

    def _latest(self, message_id: str) -> Shown | None:
        return next((shown for shown in reversed(self.visible) if shown.message_id == message_id), None)

    def _show(self, event: Event, version: int) -> None:
        match event:
            case e.MessageAdded(message_id=message_id, content=content):
                self.visible.append(Shown(message_id, version, 0, version, content))
            case e.MessageEdited(message_id=message_id, content=content):
                edited = self._latest(message_id)
                assert edited is not None
                edited.content_version, edited.content = version, content
            case e.MessageRemoved(message_id=message_id):
                removed = self._latest(message_id)
                self.visible = [shown for shown in self.visible if shown is not removed]
            case e.HistoryCleared():
                self.visible = []
            case e.HistoryReplaced(messages=messages):
                self.visible = [
                    Shown(m.message_id, version, item, version, m.content) for item, m in enumerate(messages)
                ]
            case e.HistoryCompacted(message_id=message_id, summary=summary, kept=kept):
                newest = self.visible[len(self.visible) - kept :]
                self.visible = [Shown(message_id, version, 0, version, summary), *newest]
            case _:
                pass


@st.composite
def histories(draw: st.DrawFn, session_id: str = "s") -> History:
    """Draw a session's history."""
    history = History(initial("default", session_id))
    for command in (draw(STARTS), *draw(st.lists(COMMANDS, max_size=25))):
        history.obey(command)
    return history
