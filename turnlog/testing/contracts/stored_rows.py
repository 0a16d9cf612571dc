"""What recorders promise that keep rows where damage can reach them.

The inheriting class gives the fixtures ``recorder`` and ``damage``.
"""

from collections.abc import Callable
from typing import TypeAlias

import pytest

from turnlog.domain.errors import CorruptLog
from turnlog.domain.recorder import Recorder, SnapshotRow
from turnlog.testing.contracts.rows import S, T, batch, grow, key, write

Damage: TypeAlias = Callable[[str, str, str, object], None]
"""Of (``keys`` or ``snapshots``, column, stream, value): put the value into the stream's row."""


class StoredRowsContract:
    """Disposable rows are believed only with their seal."""

    @pytest.mark.parametrize(
        ("column", "value"),
        [("kind", "command"), ("version", 1), ("fingerprint", b"." * 16), ("seal", b"." * 16), ("key", "other")],
    )
    def test_a_damaged_key_is_corrupt(self, recorder: Recorder, damage: Damage, column: str, value: object) -> None:
        """A key that does not match its seal is never believed, and is named."""
        write(recorder, batch(S, 2, keys=[key("k", 2)]), batch(T, 2, keys=[key("k", 2)]))
        damage("keys", column, S, value)
        with pytest.raises(CorruptLog, match="'default/s'.*key"):
            recorder.select_all_keys(S)
        name = ("command" if column == "kind" else "message", "other" if column == "key" else "k")
        with pytest.raises(CorruptLog, match="'default/s'.*key"):
            recorder.select_keys(S, (name,))
        assert recorder.select_keys(T, (("message", "k"),)) == [key("k", 2)]

    @pytest.mark.parametrize(
        ("column", "value"),
        [("version", 1), ("revision", 2), ("hash", b"." * 32), ("state", b"{}"), ("seal", b"." * 16)],
    )
    def test_a_damaged_snapshot_is_none(self, recorder: Recorder, damage: Damage, column: str, value: object) -> None:
        """A snapshot that does not match its seal is as good as none."""
        snapshot = SnapshotRow(2, 1, b"h" * 32, b"{1}")
        write(recorder, batch(S, 2, snapshot=snapshot), batch(T, 2, snapshot=snapshot))
        damage("snapshots", column, S, value)
        assert recorder.select_snapshot(S) is None
        assert recorder.select_snapshot(T) == snapshot

    @pytest.mark.parametrize("table", ["keys", "snapshots"])
    def test_a_row_of_another_stream_is_not_believed(self, recorder: Recorder, damage: Damage, table: str) -> None:
        """A sealed row that was moved to another stream does not match there."""
        write(recorder, batch(S, 2, keys=[key("k", 2)], snapshot=SnapshotRow(2, 1, b"h" * 32, b"{}")))
        grow(recorder, T, 2)
        damage(table, "originator_id", S, T)
        if table == "keys":
            with pytest.raises(CorruptLog, match="'default/t'"):
                recorder.select_keys(T, (("message", "k"),))
        else:
            assert recorder.select_snapshot(T) is None
