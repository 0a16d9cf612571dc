"""OpenSearch follows a store: what it holds is what the store has, whatever happened on the way."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import turnlog
from tests.adapters.opensearch_indices import Indices
from tests.servers.starting import free_port
from turnlog.adapters.opensearch.views import OpenSearchViews

WORDS = ("table", "river", "烤鸭", "zwölf", "🙂", "nul\x00here", "")


@pytest.fixture
def store(sqlite_url: str) -> Iterator[turnlog.ConversationStore]:
    """An empty store."""
    with turnlog.open(sqlite_url) as opened:
        yield opened


def one_of_everything(store: turnlog.ConversationStore) -> None:
    """Say, edit, remove, replace, compact and delete; assign owners; on two routes."""
    edited = store.session("edited", user_id="alice", agent="concierge")
    edited.add_message("user", "first wording", message_id="m1", occurred_at=datetime(1, 1, 1, 0, 0, 0, 7, UTC))
    edited.add_message(
        "assistant", [{"type": "text", "text": "parts"}, {"type": "image", "n": 10**40}], message_id="m2"
    )
    edited.edit_message("m1", "second wording")
    edited.add_message("user", "a passing word", message_id="m3")
    edited.remove_message("m3")
    with edited.turn():
        edited.enter_route("booking")
        edited.enter_step("size")
        edited.add_message("assistant", None, tool_calls=[{"id": "c", "name": "find"}], metadata={"k": 1.5})
    found = store.session("found")
    found.add_message("user", "whose am I?", name="nobody")
    found.assign_owner("bob")
    rearranged = store.session("rearranged", user_id="bob")
    rearranged.add_messages([{"role": "user", "content": f"number {i}"} for i in range(5)])
    rearranged.compact_history("they counted", keep_last=2)
    rearranged.set_history([{"role": "user", "content": f"again {i}"} for i in range(4)])
    rearranged.add_message("assistant", "so be it")
    rearranged.compact_history([{"type": "text", "text": "they counted again"}], keep_last=3)
    rearranged.pop_message()
    cleared = store.session("cleared", user_id="carol")
    cleared.add_message("user", "soon gone")
    cleared.clear_history()
    cleared.complete()
    edited.fork("fork")
    deleted = store.session("deleted", user_id="carol")
    deleted.add_message("user", "secret")
    deleted.set_history([{"role": "user", "content": "secret too"}])
    deleted.delete()


@pytest.mark.parametrize("page", [1, 1_000])
def test_what_is_followed_is_what_is_there(
    store: turnlog.ConversationStore, indices: Indices, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every session's summary and every visible message, to the last field, in whatever pages the log was read."""
    monkeypatch.setattr(OpenSearchViews, "page", page)
    one_of_everything(store)
    with indices.follow(store) as followed:
        followed.catch_up()
        indices.assert_same(store, followed)
        status = followed.status()
        assert (status.position, status.lag, status.parked) == (store.position, 0, 0)
        at = indices.versions()
        followed.catch_up()
        assert indices.versions() == at
    assert "secret" not in indices.everything()


def act(dice: random.Random, store: turnlog.ConversationStore) -> None:
    """Do something to one of a few sessions."""
    session = store.session(f"s{dice.randrange(4)}")
    visible = [message.message_id for message in session.history()]
    word = f"{dice.choice(WORDS)} {dice.choice(WORDS)}"
    some = dice.choice(visible) if visible else None
    actions: list[Callable[[], Any]] = [
        *[lambda: session.add_message(dice.choice(["user", "assistant"]), word)] * 6,
        lambda: some and session.edit_message(some, word),
        lambda: some and session.remove_message(some),
        lambda: session.compact_history(word, keep_last=dice.randrange(3)),
        lambda: session.set_history([{"role": "user", "content": word}] * dice.randrange(4)),
        session.clear_history,
        lambda: session.user_id or session.assign_owner(dice.choice(["alice", "bob"])),
        lambda: session.enter_route(dice.choice(["a", "b"])),
        lambda: session.enter_step(dice.choice(["x", "y"])),
    ]
    dice.choice(actions)()


@pytest.mark.parametrize("seed", range(2))
def test_two_followers_in_any_order_come_to_the_same(
    store: turnlog.ConversationStore, indices: Indices, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of two reads which page first, and however far each is, nothing is lost, doubled or revived."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    with indices.follow(store) as one, indices.follow(store) as other:
        for _ in range(12):
            for _ in range(dice.randrange(12)):
                act(dice, store)
            monkeypatch.setattr(OpenSearchViews, "page", dice.choice([1, 2, 5, 1_000]))
            dice.choice([one, other]).catch_up()
        one.catch_up()
        indices.assert_same(store, other)


def test_a_page_that_comes_late_changes_nothing(store: turnlog.ConversationStore, indices: Indices) -> None:
    """A follower that was paused, before it sent what it had read, revives nothing that was erased or removed."""
    session = store.session("s", user_id="alice")
    session.add_message("user", "secret", message_id="m1")
    session.add_message("user", "slip", message_id="m2")
    store.session("t").set_history([{"role": "user", "content": "secret"}] * 3)
    with indices.follow(store) as followed:
        with indices.late_page(store):
            session.remove_message("m2")
            store.get("t").delete()
            followed.catch_up()
        followed.catch_up()
        indices.assert_same(store, followed)
    assert "slip" not in indices.everything()


def test_whoever_erases_is_followed(store: turnlog.ConversationStore, indices: Indices) -> None:
    """A user who is erased is gone from every index, an unfinished rebuild too once it goes on; others stay."""
    one_of_everything(store)
    with indices.follow(store) as followed:
        followed.catch_up()
        with pytest.raises(KeyboardInterrupt):
            followed.rebuild(_interrupt)
        store.erase_user("bob")
        followed.scrub()
        assert {one["user_id"] for one in indices.documents("messages")} == {"alice"}
        followed.rebuild()
        indices.assert_same(store, followed)
    assert "bob" not in indices.everything()
    assert indices.generations() == [2]


def _interrupt(_: turnlog.RebuildProgress) -> None:
    raise KeyboardInterrupt


def test_a_rebuild_takes_the_place_of_what_answers(store: turnlog.ConversationStore, indices: Indices) -> None:
    """The old indices answer until the new ones are level; another follower goes on in the new ones."""
    one_of_everything(store)
    with indices.follow(store) as followed, indices.follow(store) as other:
        followed.catch_up()
        seen: list[tuple[int, int]] = []
        followed.rebuild(lambda _: seen.append(followed.counts()))
        assert set(seen) == {followed.counts()}
        store.session("new").add_message("user", "after it")
        other.catch_up()
        indices.assert_same(store, followed)
    assert indices.generations() == [2]


def test_an_interrupted_rebuild_goes_on_or_is_discarded(store: turnlog.ConversationStore, indices: Indices) -> None:
    """What was begun is used again by the same revision, deleted on request, and by whoever wants another language."""
    one_of_everything(store)
    with indices.follow(store) as followed:
        followed.catch_up()
        with pytest.raises(KeyboardInterrupt):
            followed.rebuild(_interrupt)
        assert indices.generations() == [1, 2]
        followed.discard_builds()
        assert indices.generations() == [1]
        with pytest.raises(KeyboardInterrupt):
            followed.rebuild(_interrupt)
    with indices.follow(store, language="english") as followed:
        assert indices.generations() == [2]
        indices.assert_same(store, followed)
        assert [found.session_id for found in followed.search("counts").items] == ["rearranged"]


def test_a_late_write_to_indices_that_are_gone_makes_none(store: turnlog.ConversationStore, indices: Indices) -> None:
    """Who was overtaken by a rebuild finds nothing to write to, and makes no index by accident."""
    session = store.session("s")
    with indices.follow(store) as followed:
        followed.catch_up()
        session.add_message("user", "hi")
        with indices.late_page(store):
            followed.rebuild()
        assert indices.generations() == [2]
        session.add_message("user", "again")
        followed.catch_up()
        indices.assert_same(store, followed)


def test_what_the_cluster_will_not_take_parks_its_session(store: turnlog.ConversationStore, indices: Indices) -> None:
    """A document that is refused for good parks that session, visibly; the others go on; it can be tried again."""
    store.session("bad").add_message("user", "x" * 40_000, message_id="m")
    store.session("good").add_message("user", "hi")
    with indices.follow(store, language="keyword") as followed:  # one term a text, and terms are bounded
        followed.catch_up()
        (parked,) = followed.parked()
        assert (parked.session_id, followed.status().parked) == ("bad", 1)
        assert "immense term" in parked.error
        assert [one.session_id for one in followed.sessions().items] == ["good"]
        assert not followed.retry()
        store.get("bad").edit_message("m", "short")
        followed.catch_up()
        assert followed.parked() != ()
        assert followed.retry()
        indices.assert_same(store, followed)


def test_another_log_is_not_mixed_in(store: turnlog.ConversationStore, indices: Indices, tmp_path: Path) -> None:
    """Indices that have followed one store refuse another; another prefix keeps both."""
    store.session("s").add_message("user", "hi")
    with indices.follow(store) as followed:
        followed.catch_up()
    with turnlog.open(f"sqlite:///{tmp_path}/other.db") as other:
        other.session("s").add_message("user", "hello")
        with pytest.raises(turnlog.StoreError, match="another log"):
            indices.follow(other)


def test_tenants_and_names_are_kept_apart(store: turnlog.ConversationStore, sqlite_url: str, indices: Indices) -> None:
    """All tenants are followed, one is asked; names can be chosen, and what cannot be one is refused."""
    long = "ü" * 255
    with turnlog.open(sqlite_url, tenant=long) as other:
        other.session(long, user_id=long).add_message("user", "ours", message_id=long)
        store.session("s", user_id=long).add_message("user", "ours")
        names = {"sessions": f"{indices.prefix}-talks"}
        with indices.follow(store, names=names) as followed, indices.follow(other, names=names) as theirs:
            followed.catch_up()
            assert [one.session_id for one in followed.search("ours").items] == ["s"]
            assert [one.session_id for one in theirs.search("ours", user_id=long).items] == [long]
            assert followed.counts() == theirs.counts() == (1, 1)
    for wrong in ({"prefix": "Big"}, {"prefix": "a/b"}, {"names": {"other": "x"}}, {"names": {"messages": 1}}):
        with pytest.raises(turnlog.InvalidInput):
            turnlog.follow(store, indices.server.url, **wrong)
    with pytest.raises(turnlog.InvalidInput, match="language"):
        indices.follow(store, language="klingon")


def test_opensearch_is_no_log(indices: Indices, store: turnlog.ConversationStore) -> None:
    """Opening it says so and names the way; one user's view cannot be followed; nothing else follows."""
    with pytest.raises(turnlog.InvalidInput, match=r"no transaction.*turnlog\.follow\(store"):
        turnlog.open(indices.server.url)
    with pytest.raises(turnlog.InvalidInput, match="store itself"):
        indices.follow(store.for_user("alice"))
    with pytest.raises(turnlog.InvalidInput, match="opensearch://"):
        turnlog.follow(store, "redis://localhost")


@pytest.mark.parametrize(
    "url", ["opensearch://", "opensearch://u:secret@/", "opensearch+ftp://u:secret@h", "opensearch:///"]
)
def test_urls_that_are_none(store: turnlog.ConversationStore, url: str) -> None:
    """They are refused, without their password."""
    with pytest.raises(turnlog.InvalidInput, match="url") as refused:
        turnlog.follow(store, url)
    assert "secret" not in str(refused.value)


def test_no_password_in_errors(store: turnlog.ConversationStore, caplog: pytest.LogCaptureFixture) -> None:
    """A cluster that cannot be reached is named without user and password, in every cause too."""
    port = free_port()
    with pytest.raises(turnlog.StoreUnavailable, match=f"127.0.0.1:{port}") as away:
        turnlog.follow(store, f"opensearch://joe:pass%77ord@127.0.0.1:{port}")
    error: BaseException | None = away.value
    while error is not None:
        assert "password" not in f"{error!s}{error!r}"
        error = error.__cause__ or error.__context__
    assert "password" not in caplog.text
