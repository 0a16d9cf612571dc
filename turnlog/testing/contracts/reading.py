"""Reading streams and the log, and following it: what every recorder promises."""

import threading
from itertools import product

import pytest

from turnlog.domain.envelope import private_of
from turnlog.domain.recorder import Recorder
from turnlog.testing.contracts.rows import Patience, S, T, append_many, batch, grow, tombstone, write

WINDOWS = [(0, None), (3, 7), (9, 10), (10, None), (4, 4), (0, 99), (12, 20)]
"""Between which versions of ten a stream is read: (after, upto)."""


class ReadContract(Patience):
    """Reading streams and the log, and following it."""

    @pytest.fixture
    def recorder_of_ten(self, recorder: Recorder) -> Recorder:
        """A recorder with ten events of S among as many of T."""
        for _ in range(5):
            grow(recorder, S, 2)
            grow(recorder, T, 2)
        return recorder

    def test_stream(self, recorder_of_ten: Recorder) -> None:
        """A stream is read between any two versions, in both directions, up to a limit."""
        whole = {row[1]: row for row in recorder_of_ten.select_stream(S)}
        assert list(whole) == list(range(1, 11))
        for (after, upto), limit, desc in product(WINDOWS, (None, 1, 4, 10, 11), (False, True)):
            rows = recorder_of_ten.select_stream(S, after=after, upto=upto, desc=desc, limit=limit)
            expected = [v for v in range(1, 11) if after < v <= (upto or 10)]
            expected = (expected[::-1] if desc else expected)[:limit]
            assert rows == [whole[v] for v in expected], (after, upto, limit, desc)

    def test_unknown_stream(self, recorder_of_ten: Recorder) -> None:
        """A stream of which nothing is recorded is empty, whatever else begins with its name."""
        assert recorder_of_ten.select_stream("default/") == []
        assert recorder_of_ten.select_stream("default/s/") == []
        assert recorder_of_ten.select_keys("default/no", (("message", "k"),)) == []
        assert recorder_of_ten.select_all_keys("default/no") == []
        assert recorder_of_ten.select_snapshot("default/no") is None

    def test_versions(self, recorder_of_ten: Recorder) -> None:
        """Events of any streams are read at once, each once however often it is wanted; what is not there is left out.

        Another tenant's session of the same name is another stream; what was erased is there, and reads as erased.
        """
        recorder = recorder_of_ten
        grow(recorder, "other/s", 2)
        write(recorder, tombstone(T, recorder.select_stream(T)))
        wanted = [(S, 9), ("other/s", 2), (T, 3), (S, 1), (T, 11), (S, 9), (S, 2)]
        whole = {(name, row[1]): row for name in (S, T, "other/s") for row in recorder.select_stream(name)}
        missing = [(S, 0), (S, 11), ("other/s", 3), ("other/t", 1), ("default/", 1), ("default/s/", 1), (f"{S} ", 1)]
        found = recorder.select_versions([*missing, *wanted])
        assert found == {at: whole[at] for at in wanted}
        assert private_of(found[T, 3][3]) is None
        assert recorder.select_versions(missing) == recorder.select_versions(()) == {}

    def test_versions_by_the_thousand(self, recorder: Recorder) -> None:
        """However many are wanted, all are found: of a long stream, and of many short ones."""
        names = [f"default/{n}" for n in range(40)]
        write(recorder, batch(S, 1_200), *(batch(name, 1) for name in names))
        wanted = [(S, version) for version in range(1, 1_201)] + [(name, 1) for name in names]
        found = recorder.select_versions(wanted)
        assert set(found) == set(wanted)
        assert [found[S, version] for version in range(1, 1_201)] == recorder.select_stream(S)
        assert [[found[name, 1]] for name in names] == [recorder.select_stream(name) for name in names]

    def test_log(self, recorder_of_ten: Recorder) -> None:
        """The log is read in position order, between any two positions, up to a limit."""
        streams = [(stream, row) for stream in (S, T) for row in recorder_of_ten.select_stream(stream)]
        whole = {row[0]: (row[0], stream, *row[1:]) for stream, row in streams}
        for after, upto, limit in ((0, None, 99), (3, 12, 99), (3, 12, 4), (20, None, 5)):
            rows = recorder_of_ten.select_log(after=after, upto=upto, limit=limit)
            expected = [p for p in range(1, 21) if after < p <= (upto or 20)][:limit]
            assert rows == [whole[p] for p in expected], (after, upto, limit)

    def test_log_of_topics(self, recorder_of_ten: Recorder) -> None:
        """The log can be read for some topics only."""
        started = recorder_of_ten.select_log(limit=99, topics=("SessionStarted.v1",))
        assert [row[2] for row in started] == [1, 1]
        both = recorder_of_ten.select_log(limit=3, topics=("SessionStarted.v1", "MessageAdded.v1"), after=2)
        assert [row[0] for row in both] == [3, 4, 5]
        assert recorder_of_ten.select_log(limit=9, topics=("Nothing.v1",)) == []

    def test_log_of_a_prefix(self, recorder: Recorder) -> None:
        """The log can be read for the streams of one tenant only; names are compared exactly."""
        for stream in ("a/s", "ab/s", "a0/s", "A/s", "a/ü", "a/\U0001f600", "a\U0001f600/s"):
            grow(recorder, stream, 1)
        assert [row[1] for row in recorder.select_log(limit=9, prefix="a/")] == ["a/s", "a/ü", "a/\U0001f600"]
        assert [row[1] for row in recorder.select_log(limit=1, prefix="ab/", topics=("SessionStarted.v1",))] == ["ab/s"]
        assert recorder.select_log(limit=9, prefix="b/") == []

    def test_streams(self, recorder: Recorder) -> None:
        """Names of streams come in the order of their bytes, in pages, those of the prefix only; without one all."""
        names = ["a/A", "a/Z", "a/a", "a/a/b", "a/b", "a/ü", "a/\uffee", "a/\U0001f600"]
        for name in (*reversed(names), "b/a", "a0/a", "A/a"):
            grow(recorder, name, 2)
        assert recorder.streams(prefix="a/", limit=99) == names
        paged: list[str] = []
        while len(paged) < len(names):
            page = recorder.streams(prefix="a/", after=paged[-1] if paged else "", limit=3)
            assert 0 < len(page) <= 3
            paged += page
        assert paged == names
        assert recorder.streams(prefix="c/", limit=9) == []
        everything = sorted([*names, "b/a", "a0/a", "A/a"], key=str.encode)
        assert recorder.streams(prefix="", limit=99) == everything
        assert recorder.streams(prefix="", after="a/b", limit=2) == ["a/ü", "a/\uffee"]

    def test_position(self, recorder: Recorder) -> None:
        """The log's position is that of its newest event; an empty log's is 0."""
        assert recorder.position() == 0
        assert recorder.select_log(limit=1) == []
        for n in (1, 3):
            rows = grow(recorder, S, n)
            assert recorder.position() == rows[-1][0]

    def test_nothing_is_unsettled_where_nobody_writes(self, recorder_of_ten: Recorder) -> None:
        """Once everything is committed, whatever can be read can be read in order."""
        assert recorder_of_ten.position() == 20
        assert recorder_of_ten.visible(limit=9) == []

    def test_news_that_is_there(self, recorder: Recorder) -> None:
        """Waiting for what is there already returns at once; for what does not come, when the time is over."""
        grow(recorder, S, 2)
        assert recorder.wait_for_news(1, 0.0)
        assert not recorder.wait_for_news(2, 0.0)
        assert not recorder.wait_for_news(2, 0.05)

    def test_news_wakes(self, recorder: Recorder) -> None:
        """Whoever waits is woken by an append."""
        grow(recorder, S, 1)
        woken: list[bool] = []
        waiting = threading.Thread(
            target=lambda: woken.append(recorder.wait_for_news(1, 3 * self.patience_s)), daemon=True
        )
        waiting.start()
        grow(recorder, S, 1)
        waiting.join(self.patience_s)
        assert woken == [True]

    def test_no_reader_is_overtaken(self, recorder: Recorder) -> None:
        """A reader that has seen position N never finds a new event below N, while several threads write."""
        threads = [threading.Thread(target=append_many, args=(recorder, str(i), 40, f"default/{i}")) for i in range(4)]
        for thread in threads:
            thread.start()
        seen: list[int] = []
        while len(seen) < 160:
            after = seen[-1] if seen else 0
            assert recorder.wait_for_news(after, self.patience_s)
            page = recorder.select_log(after=after, limit=7)
            assert page, f"news above {after}, but nothing to read"
            seen += [row[0] for row in page]
        for thread in threads:
            thread.join(self.patience_s)
        assert seen == sorted(set(seen))
        assert seen == [row[0] for row in recorder.select_log(limit=999)]
