"""Seeing by a single look that a view has applied everything: then a query asks for nothing else."""

from collections.abc import Callable

import psycopg
import pytest

import turnlog
from tests.projections.log import STARTED, Log, said
from turnlog.domain.errors import StoreError
from turnlog.projections.engine import Engine
from turnlog.projections.session_index import SessionIndex

VIEW = "session_index"


def engine_of(log: Log) -> Engine:
    """Return an engine that looks, as a store has it."""
    engine = Engine(log.recorder, log.views, log.codec, is_level=log.views.is_level)
    engine.add(SessionIndex())
    return engine


def test_it_is_seen(kept_log: Log) -> None:
    """It is level once it has applied the newest event, and not before; an unknown view never is."""
    engine = engine_of(kept_log)
    assert engine.is_level(VIEW)
    for n in range(2):
        kept_log.append("s", STARTED if n == 0 else said(f"{n}"))
        assert not engine.is_level(VIEW)
        assert engine.catch_up()
        assert engine.is_level(VIEW)
    assert not engine.is_level("nothing")


def test_what_another_applied_is_seen(kept_log: Log, other: Callable[..., Log]) -> None:
    """Nothing is remembered: each look asks the storage, and a rebuild changes nothing."""
    engine, elsewhere = engine_of(kept_log), engine_of(other())
    kept_log.append("s", STARTED)
    elsewhere.catch_up()
    assert engine.is_level(VIEW)
    elsewhere.rebuild(VIEW)
    assert engine.is_level(VIEW)


def test_another_revision_is_not_level(kept_log: Log) -> None:
    """What a newer program made of the log is refused, as without a look."""
    engine = engine_of(kept_log)
    kept_log.query("UPDATE turnlog_views SET revision = revision + 1")
    assert not engine.is_level(VIEW)
    with pytest.raises(StoreError, match="newer program"):
        engine.catch_up()


def test_a_view_ahead_of_the_log_is_not_level(kept_log: Log) -> None:
    """It was restored from an older copy: the log ends before the checkpoint."""
    engine = engine_of(kept_log)
    kept_log.query("UPDATE turnlog_views SET position = 7")
    assert not engine.is_level(VIEW)


def test_what_is_not_settled_is_not_passed_over(postgresql_url: str) -> None:
    """An event behind another's open transaction is visible, though no view may have it: it is found all the same."""
    insert = (
        "INSERT INTO turnlog_events (originator_id, originator_version, topic, state) SELECT 'default/open', 1, topic,"
        " state FROM turnlog_events LIMIT 1"
    )
    with turnlog.open(postgresql_url) as store, psycopg.connect(postgresql_url) as open_transaction:
        store.session("before")
        assert len(store.sessions().items) == 1
        open_transaction.execute(insert)
        store.session("after")
        assert [one.session_id for one in store.sessions().items] == ["after", "before"]
        open_transaction.rollback()
        assert [one.session_id for one in store.sessions().items] == ["after", "before"]


def test_a_query_of_a_level_view_looks_once(kept_log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks neither how far the log is settled, nor for what is not, nor for checkpoints."""
    with turnlog.open(kept_log.url or f"sqlite:///{kept_log.path}") as store:
        store.session("s", user_id="alice").add_message("user", "hello")
        assert len(store.sessions().items) == len(store.messages(user_id="alice").items) == 1
        parts = store._parts.backend  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - what it asks cannot be seen from outside

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("it was asked")

        for asked, name in ((parts.recorder, "position"), (parts.recorder, "visible"), (parts.views, "checkpoints")):
            monkeypatch.setattr(asked, name, refuse)
        assert len(store.sessions().items) == len(store.messages(user_id="alice").items) == 1
