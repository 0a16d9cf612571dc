"""Keys and snapshots, erasing, and tenants that share a recorder: what every recorder promises."""

from collections.abc import Sequence

import pytest

from turnlog.domain.envelope import private_of
from turnlog.domain.errors import ConcurrencyConflict
from turnlog.domain.recorder import Batch, Reader, Recorder, SnapshotRow
from turnlog.testing.contracts.rows import S, T, batch, grow, key, tombstone, write


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


def _snapshot(stream: str) -> SnapshotRow:
    return SnapshotRow(2, 1, b"h" * 32, stream.encode())


def _everything(recorder: Recorder, stream: str) -> tuple[object, ...]:
    return (recorder.select_stream(stream), recorder.select_all_keys(stream), recorder.select_snapshot(stream))
