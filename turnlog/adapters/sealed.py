"""Disposable rows (keys, snapshots) as a database gives them: believed only with their seal."""

from turnlog.domain.chain import row_seal
from turnlog.domain.errors import CorruptLog
from turnlog.domain.recorder import KeyRow, SnapshotRow


def sealed_key(stream: str, row: tuple[str, str, int, bytes, bytes]) -> KeyRow:
    """Return the key that a row (kind, key, version, fingerprint, seal) holds.

    Raises:
        CorruptLog: it does not match its seal.
    """
    key = KeyRow(*row[:4])
    if row[4] != row_seal(stream, *key):
        raise CorruptLog(f"session {stream!r}: the row of key {key.kind} {key.key!r} is damaged")
    return key


def sealed_snapshot(stream: str, row: tuple[int, int, bytes, bytes, bytes] | None) -> SnapshotRow | None:
    """Return the snapshot that a row (version, revision, hash, state, seal) holds; a damaged one is as good as none."""
    if row is None:
        return None
    snapshot = SnapshotRow(*row[:4])
    return snapshot if row[4] == row_seal(stream, *snapshot) else None
