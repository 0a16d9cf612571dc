"""The state machine's commands, and the life of sessions and of stores."""

from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from turnlog import IdempotencyConflict, InvalidInput, Receipt, Session, SessionGone
from turnlog.testing.machine import commands
from turnlog.testing.machine.commands import Said
from turnlog.testing.machine.talk import CLOSED, Refused, Talk
from turnlog.testing.machine.told import Told, handles, made_by, places

MOST_SESSIONS = 8
_ids = st.sampled_from(commands.IDS)
_owners = st.none() | st.sampled_from(commands.USERS)
_values = st.fixed_dictionaries(
    {},
    optional={
        "agent": st.sampled_from(commands.AGENTS),
        "data": commands.objects,
        "context": commands.objects,
        "metadata": commands.objects,
    },
)


class Saying(Told):
    """Single commands, each by one of three handles."""

    @rule(seconds=st.sampled_from([-5, 1, 60, 3600]))
    def time_passes(self, seconds: int) -> None:
        self.pass_time(seconds)

    @rule(session_id=_ids, number=st.integers(0, 1), user_id=_owners, values=_values, history=st.booleans())
    def get_or_create(
        self, *, session_id: str, number: int, user_id: str | None, values: dict[str, Any], history: bool
    ) -> None:
        said = [{"message_id": "first", "role": "system", "content": "be kind"}] if history else []
        created: list[bool] = []
        session = self.both(
            lambda: self.stores[number].session(session_id, user_id=user_id, history=said, **values),
            lambda _: created.append(self.book.session(session_id, self.clock, {"user_id": user_id, **values}, said)),
        )
        if session is not None:
            assert session.created is created[0]
            self.agrees(session)
        self.touched.add(session_id)

    @precondition(lambda self: self.book.living())
    @rule(place=places, said=st.lists(st.tuples(handles, commands.said), min_size=1, max_size=8))
    def say(self, place: int, said: list[tuple[int, Said]]) -> None:
        for number, one in said:
            self._say(*self.picked(place, number), one)

    @precondition(lambda self: self.book.living())
    @rule(said=st.lists(st.tuples(places, handles, commands.said), min_size=1, max_size=8))
    def say_to_several(self, said: list[tuple[int, int, Said]]) -> None:
        for place, number, one in said:
            self._say(*self.picked(place, number), one)

    @precondition(lambda self: self.keyed and self.book.living())
    @rule(place=places, number=handles, said=commands.bare)
    def say_again(self, place: int, number: int, said: Said) -> None:
        """Repeat what was said under an id, as it was or (the id of) it as something else."""
        session, talk = self.picked(place, number)
        known = self.keyed.get(session.id, [])
        if known:
            first = known[place % len(known)]
            self._say(session, talk, first)
            if "command_id" in first.kwargs and said.name == first.name:
                kwargs = {**said.kwargs, "command_id": first.kwargs["command_id"]}
                self._say(session, talk, said._replace(kwargs=kwargs))

    @precondition(lambda self: len(self.book.living()) < len(self.book.talks))
    @rule(place=places, said=commands.said)
    def say_to_a_deleted_one(self, place: int, said: Said) -> None:
        known = [handle for (session_id, _), handle in self.handles.items() if self._is_gone(session_id)]
        if known:
            session = known[place % len(known)]
            said = commands.expecting(said, self.talk(session.id).version)
            self.refuses(SessionGone, lambda: said.to(session))
            self.refuses(SessionGone, session.refresh)
            self.refuses(SessionGone, lambda: self.store.get(session.id))

    @precondition(lambda self: self.book.living())
    @rule(place=places, number=handles, n=st.integers(40, 130))
    def say_much(self, place: int, number: int, n: int) -> None:
        session, talk = self.picked(place, number)
        if talk.state["status"] in CLOSED:
            return
        before = talk.version
        said = [Said("collect", ({"n": i},), {}) for i in range(before, before + n)]
        with session.turn() as turn:
            for one in said:
                one.to(session)
        for one in said:
            talk.say(one, self.clock)
        self.fits(turn.receipt, before, session)
        self.touched.add(session.id)

    def _say(self, session: Session, talk: Talk, said: Said) -> None:
        said = commands.expecting(said, talk.version)
        before, last = talk.version, talk.messages[-1:]
        known = any(talk.keys.get(key) for key in _keys(said))
        result = self.both(lambda: said.to(session), lambda result: talk.say(said, self.clock, made_by(result)))
        self.touched.add(session.id)
        if result is not None and not {"command_id", "message_id"}.isdisjoint(said.kwargs):
            self.keyed.setdefault(session.id, []).append(said)
        if isinstance(result, Receipt):
            self._receives(session, said, before, result, known=known)
            self.agrees(session)
        elif talk.version > before:
            assert result is not None
            assert [result.message_id] == [message["message_id"] for message in last]

    def _receives(self, session: Session, said: Said, before: int, receipt: Receipt, *, known: bool) -> None:
        """Require the right receipt: the first one, where it was said before."""
        repeated = [self.repeats(session.id, kind, key, receipt) for kind, key in _keys(said)]
        if any(repeated):
            return
        if known:
            assert {*receipt.event_ids} <= {event.event_id for event in session.events()}
            assert self.talk(session.id).version == before
            return
        nothing = self.talk(session.id).version == before
        if said.name == "add_messages" and said.args[0] and nothing and "command_id" not in said.kwargs:
            first = self.receipts.get((session.id, "message", said.args[0][-1]["message_id"]), receipt)
            assert _without_id(first) == _without_id(receipt)
        else:
            self.fits(receipt, before, session)

    def _is_gone(self, session_id: str) -> bool:
        return bool(self.talk(session_id).state["deleted"])

    # --- life of sessions ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.book.living() and len(self.book.talks) < MOST_SESSIONS)
    @rule(place=places, number=handles, new_id=st.none() | _ids, back=st.integers(0, 6))
    def fork(self, place: int, number: int, new_id: str | None, back: int) -> None:
        session, talk = self.picked(place, number)
        version = max(0, talk.version - back)

        def model(made: Session | None) -> None:
            if version == 0 or new_id in self.book.talks:
                raise Refused(InvalidInput)
            assert made is not None
            self.book.fork(session.id, made.id, version, self.clock)

        fork = self.both(lambda: session.fork(new_id, at=version if back else None), model)
        if fork is not None:
            self.agrees(fork)
            self.touched.add(fork.id)
            self.keyed[fork.id] = [said for said in self.keyed.get(session.id, ()) if "message_id" in said.kwargs]
            copies = zip(session.events(), fork.events(), strict=False)
            assert all(copy.causation_id == origin.event_id for origin, copy in copies if copy.version <= version)

    @precondition(lambda self: self.book.living() and len(self.book.talks) < MOST_SESSIONS)
    @rule(place=places, number=handles, preserve=st.booleans(), command_id=st.none() | st.just("reset"))
    def reset(self, *, place: int, number: int, preserve: bool, command_id: str | None) -> None:
        session, talk = self.picked(place, number)
        done = command_id is not None and session.id in self.successors

        def model(new: Session | None) -> None:
            if done:
                successor, preserved = self.successors[session.id]
                if preserved is not preserve:
                    raise Refused(IdempotencyConflict)
                if self._is_gone(successor):
                    raise Refused(SessionGone)
                assert new is not None
                assert new.id == successor
            elif new is not None:
                self.book.reset(session.id, new.id, self.clock, preserve_history=preserve)

        new = self.both(lambda: session.reset(preserve_history=preserve, command_id=command_id), model)
        if new is not None:
            self.agrees(new)
            self.touched |= {talk.state["id"], new.id}
            if command_id is not None:
                self.successors.setdefault(session.id, (new.id, preserve))

    @precondition(lambda self: len(self.book.living()) > 1)
    @rule(place=places, number=handles)
    def delete(self, place: int, number: int) -> None:
        session, talk = self.picked(place, number)
        receipt = session.delete()
        talk.delete(self.clock)
        assert receipt.version == talk.version
        assert receipt.erasure is not None

    @precondition(lambda self: len(self.book.living()) > 3)
    @rule(user_id=st.sampled_from(commands.USERS))
    def erase_user(self, user_id: str) -> None:
        report = self.store.erase_user(user_id)
        assert (report.sessions, report.events, report.forks) == self.book.erase_user(user_id, self.clock)

    @precondition(lambda self: self.book.living())
    @rule(place=places, number=handles)
    def refresh(self, place: int, number: int) -> None:
        session, _ = self.picked(place, number)
        self.agrees(session.refresh())

    # --- life of stores -----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.is_shared)
    @rule(number=st.integers(0, 1))
    def reopen(self, number: int) -> None:
        self.stores[number].close()
        self.stores[number] = self.opened()
        self.handles = {key: handle for key, handle in self.handles.items() if (key[1] == 2) != bool(number)}

    @rule(number=st.integers(0, 1))
    def catch_up(self, number: int) -> None:
        self.stores[number].catch_up()

    @rule(view=st.sampled_from([None, "session_index", "message_index"]))
    def rebuild(self, view: str | None) -> None:
        self.store.rebuild(view)

    @precondition(lambda self: len(self.book.living()) < len(self.book.talks))
    @rule(vacuum=st.booleans())
    def scrub(self, *, vacuum: bool) -> None:
        self.store.scrub(vacuum=vacuum)

    @rule()
    def keep_heads(self) -> None:
        self.heads += self.store.heads()


def _without_id(receipt: Receipt) -> Receipt:
    return msgspec.structs.replace(receipt, message_id=None)


def _keys(said: Said) -> list[tuple[str, str]]:
    """Return the ids it is said under."""
    used = [("command", said.kwargs.get("command_id"))]
    used += [("message", said.kwargs.get("message_id"))] if said.name == "add_message" else []
    return [(kind, key) for kind, key in used if key is not None]
