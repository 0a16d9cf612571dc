"""What must not be told: passwords of URLs. And errors that travel between processes."""

import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

import turnlog
from turnlog import (
    ConversationStore,
    InvalidInput,
    Session,
    SessionClosed,
    SessionGone,
    SessionNotFound,
    StoreUnavailable,
    TurnlogError,
)

URLS = [
    "postgresql://alice:hunter2@localhost/db",
    "mariadb+pymysql://alice:hunter2@localhost/db",
    "redis://:hunter2@localhost/0",
    "oracle://alice:hunter2@localhost/db",
    "sqlite://alice:hunter2@localhost/db",
    "sqlite:///sessions.db?password=hunter2",
    "sqlite:///sessions.db?hunter2",
    "memory://alice:hunter2@here",
    "memory://?key=hunter2",
    "alice:hunter2@localhost/db",
    "hunter2",
    "hunter2://",
]


@pytest.mark.parametrize("url", URLS)
def test_no_password_of_a_url_is_told(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A URL that cannot be opened is refused without repeating what may be a secret in it."""
    caplog.set_level(logging.DEBUG)
    with pytest.raises((InvalidInput, StoreUnavailable)) as raised:
        turnlog.open(url)
    error: BaseException | None = raised.value
    while error is not None:
        assert "hunter2" not in f"{error} {error!r} {error.args}" or url.startswith("hunter2")
        error = error.__cause__ or error.__context__
    assert "hunter2" not in caplog.text


def test_reprs_tell_no_content(store: ConversationStore, session: Session) -> None:
    """A store's and a session's repr say what they are, and nothing that was said."""
    session.add_message("user", "secret")
    session.collect({"secret": "secret"})
    assert repr(store) == "<ConversationStore tenant='default'>"
    assert repr(store.for_user("alice")) == "<ConversationStore tenant='default' user_id='alice'>"
    assert repr(session) == "<Session 's-1' active version=3>"


def use_closed(store: ConversationStore) -> None:
    """Ask a store that was closed for a session."""
    store.close()
    store.get("s-1")


RAISING: dict[str, tuple[type[TurnlogError], Callable[[ConversationStore, Session], object]]] = {
    "InvalidInput": (InvalidInput, lambda _, s: s.add_message("robot", "hi")),
    "SessionNotFound": (SessionNotFound, lambda store, _: store.get("nowhere")),
    "SessionClosed": (SessionClosed, lambda _, s: [s.complete(), s.collect(n=1)]),
    "SessionGone": (SessionGone, lambda _, s: [s.delete(), s.refresh()]),
    "NotOwner": (turnlog.NotOwner, lambda store, _: store.session("s-1", user_id="bob")),
    "IdempotencyConflict": (
        turnlog.IdempotencyConflict,
        lambda _, s: [s.collect(n=1, command_id="k"), s.collect(n=2, command_id="k")],
    ),
    "RuleViolation": (turnlog.RuleViolation, lambda _, s: [s.start_run("r", n=1), s.start_run("r", n=2)]),
    "ConcurrencyConflict": (turnlog.ConcurrencyConflict, lambda _, s: s.collect(n=1, expected_version=7)),
    "StoreUnavailable": (StoreUnavailable, lambda store, _: use_closed(store)),
}


@pytest.mark.parametrize("name", RAISING)
def test_errors_can_be_sent_to_another_process(store: ConversationStore, session: Session, name: str) -> None:
    """An error that was raised is the same after pickling: class, message and fields; and one except catches all."""
    kind, use = RAISING[name]
    with pytest.raises(TurnlogError) as raised:
        use(store, session)
    error = raised.value
    assert type(error) is kind
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(again), str(again), again.args) == (type(error), str(error), error.args)
    assert vars(again) == vars(error)


def test_a_storage_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    """A missing folder, a folder instead of a file, a file that is no database: a StoreError that names the path."""
    (tmp_path / "text.db").write_bytes(
        b"this is no database, it is text, and long enough to be taken for a header" * 20
    )
    (tmp_path / "folder.db").mkdir()
    for name in ("missing/x.db", "folder.db", "text.db"):
        with pytest.raises(turnlog.StoreError, match=name):
            turnlog.open(f"sqlite:///{tmp_path}/{name}")


def test_a_read_only_store_reads_and_refuses_to_write(sqlite_url: str) -> None:
    """Everything that reads answers, though the views were never caught up; writing is refused, and so is creating."""
    with pytest.raises(StoreUnavailable):
        turnlog.open(sqlite_url, read_only=True)
    with turnlog.open(sqlite_url) as store:
        for n in range(3):
            store.session(f"s-{n}", user_id=f"user-{n % 2}").add_message("user", f"{n}")
        with turnlog.open(sqlite_url, read_only=True) as reader:
            session = reader.get("s-1")
            assert session.history()[0].content == "1"
            assert [summary.session_id for summary in reader.sessions().items] == ["s-2", "s-1", "s-0"]
            assert [message.content for message in reader.messages(user_id="user-0").items] == ["2", "0"]
            store.catch_up()  # lists of users, and counts, are the views' own
            assert [(user.user_id, user.sessions) for user in reader.users().items] == [("user-0", 2), ("user-1", 1)]
            assert (reader.stats().sessions, reader.stats().messages) == (3, 3)
            assert reader.verify("s-1").ok
            assert len(list(reader.events())) == 6
            uses: list[Callable[[], object]] = [
                lambda: session.add_message("user", "hi"),
                lambda: reader.session("new"),
                session.delete,
                session.fork,
            ]
            for use in uses:
                with pytest.raises(StoreUnavailable, match="read-only"):
                    use()
            store.get("s-1").collect(n=1)
            assert session.refresh().data == {"n": 1}
