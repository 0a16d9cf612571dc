"""What every recorder promises, see turnlog/domain/recorder.py. A backend's tests inherit the class."""

import threading
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from tests.contracts.rows import batch, grow, key, not_again, tombstone, write
from turnlog.domain.envelope import private_of
from turnlog.domain.errors import ConcurrencyConflict, StoreUnavailable
from turnlog.domain.recorder import Batch, Reader, Recorder, SnapshotRow

S, T = "default/s", "default/t"
LONG_S = 20.0
"""How long a test waits for what must happen."""


class AppendContract:
    """Writing. The inheriting class gives the fixture ``recorder``: an empty one."""

    def test_positions_are_those_of_the_last_rows(self, recorder: Recorder) -> None:
        """An append returns, per batch, the position of its last row; within a batch they are contiguous."""
        positions = write(recorder, batch(S, 3), batch(T, 2))
        assert positions == [recorder.select_stream(stream)[-1][0] for stream in (S, T)]
        for stream in (S, T):
            found = [row[0] for row in recorder.select_stream(stream)]
            assert found == list(range(found[0], found[0] + len(found)))

    @pytest.mark.parametrize("n", [1, 2, 8, 9, 2_500])
    def test_rows_come_back_as_written(self, recorder: Recorder, n: int) -> None:
        """What was appended is what is read, byte for byte, however many rows an append has."""
        written = batch(S, n)
        write(recorder, written)
        assert [row[1:] for row in recorder.select_stream(S)] == list(written.rows)

    def test_any_bytes_and_names_come_back(self, recorder: Recorder) -> None:
        """States are exact bytes and streams and topics exact text, NUL and characters beyond the BMP included."""
        stream, topic = "ten ant/ü\U0001f600 '\"%_", "Täg\U0001f600.v1"
        state = bytes(range(256)) + b"\x00"
        write(recorder, Batch(stream, [(1, topic, state)]))
        assert recorder.select_stream(stream) == [(1, 1, topic, state)]
        assert recorder.select_log(limit=1) == [(1, stream, 1, topic, state)]

    def test_versions_may_begin_above_one(self, recorder: Recorder) -> None:
        """A batch takes any free versions: that they are dense is the writer's affair, and verify's."""
        write(recorder, Batch(S, [(5, "t", b"a"), (6, "t", b"b")]))
        assert [row[1] for row in recorder.select_stream(S)] == [5, 6]

    def test_a_batch_without_rows_has_no_position(self, recorder: Recorder) -> None:
        """A batch of keys alone is written too, and its position is 0."""
        grow(recorder, S, 2)
        assert write(recorder, Batch(S, (), [key("k", 2, "command")])) == [0]
        assert recorder.select_all_keys(S) == [key("k", 2, "command")]

    def test_a_taken_version_asks_again(self, recorder: Recorder) -> None:
        """The loser of a race is asked again, sees what the winner wrote, and what it then gives is written."""
        grow(recorder, S, 2, words="winner")
        seen: list[int] = []

        def again(reader: Reader) -> Sequence[Batch]:
            rows = reader.select_stream(S)
            seen.extend(row[1] for row in rows)
            return (batch(S, 1, before=rows, words="loser"),)

        (position,) = recorder.append((batch(S, 1, words="loser"),), again)
        assert seen == [1, 2]
        assert [row[1] for row in recorder.select_stream(S)] == [1, 2, 3]
        assert position == recorder.select_stream(S)[-1][0]

    def test_a_taken_key_asks_again(self, recorder: Recorder) -> None:
        """A key that was used asks again, where the reader finds it whole; nothing is written."""
        used = key("k", 2)
        write(recorder, batch(S, 2, keys=[used]))
        before = recorder.select_stream(S)
        found: list[object] = []

        def again(reader: Reader) -> Sequence[Batch]:
            found.extend(reader.select_keys(S, (("message", "k"), ("command", "k"))))
            return (Batch(S, ()),)

        recorder.append((batch(S, 1, before=before, keys=[key("k", 3)]),), again)
        assert found == [used]
        assert recorder.select_stream(S) == before
        assert recorder.select_all_keys(S) == [used]

    def test_asked_again_with_a_snapshot_to_read(self, recorder: Recorder) -> None:
        """The reader given to ``again`` finds the winner's snapshot."""
        snapshot = SnapshotRow(2, 1, b"h" * 32, b"{}")
        write(recorder, batch(S, 2, snapshot=snapshot))
        found: list[object] = []

        def again(reader: Reader) -> Sequence[Batch]:
            found.append(reader.select_snapshot(S))
            return ()

        assert recorder.append((batch(S, 1),), again) == []
        assert found == [snapshot]

    def test_what_again_raises_is_raised_with_nothing_written(self, recorder: Recorder) -> None:
        """A refusal under the lock leaves no trace, and the recorder goes on working."""
        before = grow(recorder, S, 2)

        def again(_: Reader) -> Sequence[Batch]:
            raise ConcurrencyConflict("refused")

        with pytest.raises(ConcurrencyConflict, match="refused"):
            recorder.append((batch(T, 1), batch(S, 1)), again)
        assert recorder.select_stream(S) == before
        assert recorder.select_stream(T) == []
        assert recorder.position() == before[-1][0]
        assert len(grow(recorder, S, 1)) == 3

    def test_what_again_returns_may_not_fit_either(self, recorder: Recorder) -> None:
        """A version or key that is taken after all is a conflict, as any lost race; nothing is written."""
        used = key("k", 2)
        write(recorder, batch(S, 2, keys=[used]))
        before = recorder.select_stream(S)
        for misfit in (batch(S, 1), batch(S, 1, before=before, keys=[used])):
            both = (batch(T, 1), misfit)
            with pytest.raises(ConcurrencyConflict):
                recorder.append(both, partial(_the_same, both))
        assert recorder.select_stream(S) == before
        assert recorder.select_stream(T) == []
        assert len(grow(recorder, S, 1)) == 3

    def test_several_batches_are_one(self, recorder: Recorder) -> None:
        """Where the last of several batches does not fit, nothing of any of them is written before ``again``."""
        grow(recorder, T, 1)
        empty: list[bool] = []

        def again(reader: Reader) -> Sequence[Batch]:
            empty.append(reader.select_stream(S) == [] and reader.select_keys(S, (("message", "k"),)) == [])
            return (batch(S, 2), batch(T, 1, before=reader.select_stream(T)))

        positions = recorder.append((batch(S, 2, keys=[key("k", 2)]), batch(T, 1)), again)
        assert empty == [True]
        assert positions == [recorder.select_stream(stream)[-1][0] for stream in (S, T)]
        assert [len(recorder.select_stream(stream)) for stream in (S, T)] == [2, 2]
        assert recorder.select_all_keys(S) == []

    def test_racing_threads_lose_nothing(self, recorder: Recorder) -> None:
        """Threads that append to one stream get every version once, each thread's in its order."""
        threads = [threading.Thread(target=_append_many, args=(recorder, str(i), 25)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG_S)
        rows = recorder.select_stream(S)
        assert [row[1] for row in rows] == list(range(1, 101))
        for i in range(4):
            said = [row[3] for row in rows if row[2] == str(i)]
            assert said == [b"%d" % n for n in range(25)]

    def test_used_after_close(self, recorder: Recorder) -> None:
        """A closed recorder says that it is not available; closing twice does nothing."""
        grow(recorder, S, 1)
        recorder.close()
        recorder.close()
        uses: list[Callable[[], object]] = [
            lambda: write(recorder, batch(T, 1)),
            lambda: recorder.select_stream(S),
            lambda: recorder.select_keys(S, (("message", "k"),)),
            lambda: recorder.select_all_keys(S),
            lambda: recorder.select_snapshot(S),
            lambda: recorder.select_log(limit=1),
            lambda: recorder.streams(prefix="default/", limit=1),
            lambda: recorder.wait_for_news(0, 0.0),
            recorder.position,
        ]
        for use in uses:
            with pytest.raises(StoreUnavailable):
                use()


def _the_same(batches: Sequence[Batch], _: Reader) -> Sequence[Batch]:
    return batches


class LockedContract:
    """Deciding anew where one writer excludes the others."""

    def test_the_lock_is_held_while_asking(self, recorder: Recorder) -> None:
        """While ``again`` decides, no other writer gets in between; it is let in afterwards."""
        grow(recorder, S, 1)
        threads: list[threading.Thread] = []

        def again(reader: Reader) -> Sequence[Batch]:
            other = threading.Thread(target=lambda: grow(recorder, T, 1), daemon=True)
            other.start()
            threads.append(other)
            rows = reader.select_stream(S)
            assert reader.select_stream(T) == []
            return (batch(S, 1, before=rows),)

        (position,) = recorder.append((batch(S, 1),), again)
        threads[0].join(LONG_S)
        assert recorder.select_stream(T)[0][0] > position


class UnlockedContract:
    """Deciding anew where nothing keeps other writers out."""

    def test_asked_until_it_fits(self, recorder: Recorder) -> None:
        """Who is overtaken while he decides anew is asked once more, and reads what came meanwhile."""
        grow(recorder, S, 1)
        seen: list[int] = []

        def again(reader: Reader) -> Sequence[Batch]:
            rows = reader.select_stream(S)
            seen.append(len(rows))
            if len(seen) < 3:
                grow(recorder, S, 1)
            return (batch(S, 1, before=rows),)

        recorder.append((batch(S, 1),), again)
        assert seen == [1, 2, 3]
        assert [row[1] for row in recorder.select_stream(S)] == [1, 2, 3, 4]

    def test_what_is_read_is_not_erased_meanwhile(self, recorder: Recorder) -> None:
        """A session that another one is made of is erased before that, or after it is committed; never in between."""
        rows = grow(recorder, S, 2)
        erasing = threading.Thread(target=lambda: write(recorder, tombstone(S, rows)), daemon=True)

        def again(reader: Reader) -> Sequence[Batch]:
            if not erasing.is_alive():
                assert reader.select_stream(S) == rows
                erasing.start()
                erasing.join(0.2)
            assert reader.select_stream(S) == rows
            return (batch(T, 1),)

        (position,) = recorder.append((), again)
        erasing.join(LONG_S)
        assert recorder.select_stream(S)[-1][0] > position


class ReadContract:
    """Reading streams and the log, and following it."""

    @pytest.fixture
    def recorder_of_ten(self, recorder: Recorder) -> Recorder:
        """A recorder with ten events of S among as many of T."""
        for _ in range(5):
            grow(recorder, S, 2)
            grow(recorder, T, 2)
        return recorder

    @pytest.mark.parametrize("desc", [False, True])
    @pytest.mark.parametrize("limit", [None, 1, 4, 10, 11])
    @pytest.mark.parametrize(("after", "upto"), [(0, None), (3, 7), (9, 10), (10, None), (4, 4), (0, 99), (12, 20)])
    def test_stream(
        self, recorder_of_ten: Recorder, after: int, upto: int | None, limit: int | None, *, desc: bool
    ) -> None:
        """A stream is read between any two versions, in both directions, up to a limit."""
        rows = recorder_of_ten.select_stream(S, after=after, upto=upto, desc=desc, limit=limit)
        expected = [v for v in range(1, 11) if after < v <= (upto or 10)]
        assert [row[1] for row in rows] == (expected[::-1] if desc else expected)[:limit]
        whole = {row[1]: row for row in recorder_of_ten.select_stream(S)}
        assert rows == [whole[row[1]] for row in rows]

    def test_unknown_stream(self, recorder_of_ten: Recorder) -> None:
        """A stream of which nothing is recorded is empty, whatever else begins with its name."""
        assert recorder_of_ten.select_stream("default/") == []
        assert recorder_of_ten.select_stream("default/s/") == []
        assert recorder_of_ten.select_keys("default/no", (("message", "k"),)) == []
        assert recorder_of_ten.select_all_keys("default/no") == []
        assert recorder_of_ten.select_snapshot("default/no") is None

    @pytest.mark.parametrize(("after", "upto", "limit"), [(0, None, 99), (3, 12, 99), (3, 12, 4), (20, None, 5)])
    def test_log(self, recorder_of_ten: Recorder, after: int, upto: int | None, limit: int) -> None:
        """The log is read in position order, between any two positions, up to a limit."""
        rows = recorder_of_ten.select_log(after=after, upto=upto, limit=limit)
        expected = [p for p in range(1, 21) if after < p <= (upto or 20)][:limit]
        assert [row[0] for row in rows] == expected
        both = {(row[0], stream, *row[1:]) for stream in (S, T) for row in recorder_of_ten.select_stream(stream)}
        assert set(rows) <= both

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
        """Names of streams come in the order of their bytes, in pages, those of the prefix only."""
        names = ["a/A", "a/Z", "a/a", "a/a/b", "a/b", "a/ü", "a/\uffee", "a/\U0001f600"]
        for name in (*reversed(names), "b/a", "a0/a", "A/a"):
            grow(recorder, name, 2)
        assert recorder.streams(prefix="a/", limit=99) == names
        paged: list[str] = []
        while page := recorder.streams(prefix="a/", after=paged[-1] if paged else "", limit=3):
            paged += page
        assert paged == names
        assert recorder.streams(prefix="c/", limit=9) == []

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
        waiting = threading.Thread(target=lambda: woken.append(recorder.wait_for_news(1, LONG_S)), daemon=True)
        waiting.start()
        grow(recorder, S, 1)
        waiting.join(LONG_S)
        assert woken == [True]

    def test_no_reader_is_overtaken(self, recorder: Recorder) -> None:
        """A reader that has seen position N never finds a new event below N, while several threads write."""
        threads = [threading.Thread(target=_append_many, args=(recorder, str(i), 40, f"default/{i}")) for i in range(4)]
        for thread in threads:
            thread.start()
        seen: list[int] = []
        while len(seen) < 160:
            after = seen[-1] if seen else 0
            assert recorder.wait_for_news(after, LONG_S)
            seen += [row[0] for row in recorder.select_log(after=after, limit=7)]
        for thread in threads:
            thread.join(LONG_S)
        assert seen == sorted(set(seen))
        assert seen == [row[0] for row in recorder.select_log(limit=999)]


class KeysContract:
    """Keys and snapshots, and what erasing leaves of them."""

    out_of_reach: Sequence[str] = ()
    """What scrubbing names as pending in any case: parts of the names are enough."""

    def test_keys_come_back(self, recorder: Recorder) -> None:
        """A key comes back with version and fingerprint; kind and name both tell keys apart; streams do too."""
        keys = [key("k", 1), key("k", 2, "command"), key("K", 2), key("ü\U0001f600", 2)]
        write(recorder, batch(S, 2, keys=keys), batch(T, 1))
        assert recorder.select_keys(S, [(k.kind, k.key) for k in keys]) == keys
        assert recorder.select_keys(S, (("command", "K"),)) == []
        assert recorder.select_keys(T, (("message", "k"),)) == []
        assert sorted(recorder.select_all_keys(S)) == sorted(keys)

    def test_snapshots_are_replaced(self, recorder: Recorder) -> None:
        """A stream has one snapshot: the newest that was appended."""
        first, second = SnapshotRow(1, 1, b"a" * 32, b"{1}"), SnapshotRow(3, 2, b"b" * 32, bytes(range(256)))
        write(recorder, batch(S, 1, snapshot=first))
        assert recorder.select_snapshot(S) == first
        write(recorder, batch(S, 2, before=recorder.select_stream(S), snapshot=second))
        assert recorder.select_snapshot(S) == second
        assert recorder.select_snapshot(T) is None

    @pytest.mark.parametrize("n", [1, 2_500])
    def test_erasing(self, recorder: Recorder, n: int) -> None:
        """Erasing destroys every content of a stream with its keys and snapshot; headers, places and order stay."""
        write(recorder, batch(S, n, keys=[key("k", 1)], snapshot=SnapshotRow(1, 1, b"h" * 32, b"{}")))
        before = recorder.select_stream(S)
        write(recorder, tombstone(S, before))
        after = recorder.select_stream(S)
        assert [row[:3] for row in after[:-1]] == [row[:3] for row in before]
        assert after[-1][1:3] == (n + 1, "SessionDeleted.v1")
        for old, new in zip(before, after, strict=False):
            head = old[3].index(b',"private":')
            assert new[3] == old[3][:head] + b',"private":null}'
        assert all(private_of(row[3]) is None for row in after)
        assert recorder.select_all_keys(S) == []
        assert recorder.select_keys(S, (("message", "k"),)) == []
        assert recorder.select_snapshot(S) is None

    def test_erasing_touches_only_its_stream(self, recorder: Recorder) -> None:
        """What other streams hold is the same after an erasure, byte for byte, whatever their names."""
        others = [T, "default/s2", "default/S", "other/s", "default/s/"]
        write(recorder, *(batch(name, 2, keys=[key("k", 1)], snapshot=_snapshot(name)) for name in (S, *others)))
        before = [_everything(recorder, name) for name in others]
        write(recorder, tombstone(S, recorder.select_stream(S)))
        assert [_everything(recorder, name) for name in others] == before

    def test_erasing_is_refused_whole(self, recorder: Recorder) -> None:
        """A conflict on one stream leaves another, that the same append erases, as it was."""
        for stream in (S, T):
            grow(recorder, stream, 2)
        before = _everything(recorder, S)

        def again(_: Reader) -> Sequence[Batch]:
            raise ConcurrencyConflict("refused")

        with pytest.raises(ConcurrencyConflict):
            recorder.append((tombstone(S, recorder.select_stream(S)), batch(T, 1)), again)
        assert _everything(recorder, S) == before

    def test_positions_are_never_given_twice(self, recorder: Recorder) -> None:
        """After the newest event of the log was erased, the next one is above it."""
        rows = grow(recorder, S, 2)
        (erased,) = write(recorder, tombstone(S, rows))
        assert recorder.position() == erased
        assert grow(recorder, T, 1)[0][0] > erased

    def test_nothing_lingers_without_a_word(self, recorder: Recorder) -> None:
        """The storage's own check finds nothing, scrubbing leaves the log as it was, and sizes are counts of bytes."""
        rows = grow(recorder, S, 3)
        write(recorder, tombstone(S, rows))
        before = recorder.select_log(limit=9)
        pending = recorder.scrub(vacuum=True)
        assert len(pending) == len(self.out_of_reach)
        assert all(part in words for part, words in zip(self.out_of_reach, pending, strict=True))
        assert recorder.select_log(limit=9) == before
        assert recorder.check() == []
        assert all(isinstance(place, str) for place in recorder.lingering())
        size = recorder.size_bytes()
        assert size is None or size > 0


class RecorderContract(AppendContract, ReadContract, KeysContract):
    """All of it."""


class TwoTenantsContract:
    """Equal session ids of two tenants in one recorder."""

    def test_each_write_stays_in_its_tenant(self, recorder: Recorder) -> None:
        """Appending, keys, snapshots, conflicts and erasing of one tenant leave the other's stream as it is."""
        for stream in ("a/s", "b/s"):
            write(recorder, batch(stream, 2, keys=[key("k", 1)], snapshot=_snapshot(stream)))
        before = _everything(recorder, "b/s")
        rows = grow(recorder, "a/s", 2)
        write(recorder, Batch("a/s", (), [key("new", 1, "command")], SnapshotRow(4, 1, b"n" * 32, b"new")))
        recorder.append((batch("a/s", 1),), lambda _: ())
        write(recorder, tombstone("a/s", rows))
        assert _everything(recorder, "b/s") == before
        assert recorder.streams(prefix="b/", limit=9) == ["b/s"]


def _append_many(recorder: Recorder, name: str, n: int, stream: str = S) -> None:
    """Append ``n`` events of the topic ``name``, each at the version it expects, deciding again when it is taken."""

    def next_batch(reader: Reader, i: int) -> Batch:
        rows = reader.select_stream(stream, desc=True, limit=1)
        return Batch(stream, [(rows[0][1] + 1 if rows else 1, name, b"%d" % i)])

    for i in range(n):

        def again(reader: Reader, i: int = i) -> Sequence[Batch]:
            return (next_batch(reader, i),)

        recorder.append((next_batch(recorder, i),), again)


def _snapshot(stream: str) -> SnapshotRow:
    return SnapshotRow(2, 1, b"h" * 32, stream.encode())


def _everything(recorder: Recorder, stream: str) -> tuple[object, ...]:
    return (recorder.select_stream(stream), recorder.select_all_keys(stream), recorder.select_snapshot(stream))


__all__ = ["LockedContract", "RecorderContract", "TwoTenantsContract", "UnlockedContract", "not_again"]
