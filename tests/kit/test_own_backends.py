"""Plugging in one's own adapter: as a backend, and by the URL of an installed package."""

import sys
from collections.abc import Iterator
from importlib import invalidate_caches
from pathlib import Path

import pytest

import turnlog
from tests.kit.files import FileRecorder
from turnlog import Backend, InvalidInput, StoreUnavailable, aio


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that says that it opens ``files://`` and, wrongly, ``nothing://``."""
    info = tmp_path / "site" / "turnlog_files-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: turnlog-files\nVersion: 1.0\n")
    entries = "files = tests.kit.files:opened\nnothing = tests.kit.nothing:opened\nsqlite = tests.kit.files:opened\n"
    (info / "entry_points.txt").write_text(f"[turnlog.backends]\n{entries}")
    monkeypatch.setattr(sys, "path", [str(info.parent), *sys.path])
    invalidate_caches()
    yield tmp_path
    invalidate_caches()


def test_a_recorder_is_enough(tmp_path: Path) -> None:
    """A log without views of its own is a whole store: queries, projections, erasing, following."""
    with turnlog.open(Backend(FileRecorder(tmp_path))) as store, turnlog.open(Backend(FileRecorder(tmp_path))) as other:
        store.session("s", user_id="alice").add_message("user", "hello")
        assert [row.session_id for row in other.sessions(user_id="alice").items] == ["s"]
        assert [message.content for message in other.messages(user_id="alice").items] == ["hello"]
        assert [found.message.content for found in other.search("hello").items] == ["hello"]
        receipt = store.get("s").delete()
        assert receipt.erasure is not None
        assert any("freed" in words for words in receipt.erasure.pending)
        for either in (store, other):
            assert either.sessions().items == []
            assert either.messages(user_id="alice").items == []
            assert either.search("hello").items == []
            assert either.verify().ok


def test_an_installed_package_opens_its_urls(installed: Path) -> None:
    """An entry point names the function; options that it does not take are refused as always."""
    with turnlog.open(f"files://{installed}/log", durability="normal") as store:
        receipt = store.session("s").add_message("user", "hello")
        assert receipt.durability == "normal"
    with turnlog.open(f"files://{installed}/log") as store:
        assert store.get("s").history()[0].content == "hello"
    with pytest.raises(InvalidInput, match=r"^pool_size: is not an option"):
        turnlog.open(f"files://{installed}/log", pool_size=3)
    with pytest.raises(InvalidInput, match=r"^url: what opens nothing:// cannot be imported from tests\.kit\.nothing"):
        turnlog.open("nothing://")
    with turnlog.open(f"sqlite:///{installed}/own.db") as store:
        assert store.stats().durability == "full"  # turnlog's own schemes are not to be had
    assert (installed / "own.db").is_file()


async def _through_asyncio(folder: Path) -> list[object]:
    async with aio.open(Backend(FileRecorder(folder))) as store:
        session = await store.session("s", user_id="alice")
        await session.add_message("user", "hello")
        return [row.session_id for row in (await store.sessions()).items]


def test_asyncio_opens_it_too(tmp_path: Path) -> None:
    """The awaitable store takes the same."""
    import asyncio

    assert asyncio.run(_through_asyncio(tmp_path)) == ["s"]


def test_what_does_not_fit_a_backend_is_refused(tmp_path: Path) -> None:
    """A pool or an unknown option is named, and the recorder closed."""
    backend = Backend(FileRecorder(tmp_path))
    with pytest.raises(InvalidInput, match=r"^engine: expected none"):
        turnlog.open(backend, engine=object())
    with pytest.raises(InvalidInput, match=r"^names: 'nothing' is none of"):
        turnlog.open(backend, names={"nothing": "x"})
    with pytest.raises(StoreUnavailable):
        backend.recorder.position()
    assert "tests.kit.nothing" not in sys.modules
