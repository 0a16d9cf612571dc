"""Writing: what every recorder promises of an append, and of deciding again."""

import threading
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from turnlog.domain.errors import ConcurrencyConflict, StoreUnavailable
from turnlog.domain.recorder import Batch, Reader, Recorder, SnapshotRow
from turnlog.testing.contracts.rows import Patience, S, T, append_many, batch, grow, key, write


class AppendContract(Patience):
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
        threads = [threading.Thread(target=append_many, args=(recorder, str(i), 25)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(self.patience_s)
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
            lambda: recorder.select_versions(((S, 1),)),
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
