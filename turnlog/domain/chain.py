"""The hashes that chain a stream's events; docs/format.md says them to the byte.

They are taken over stored bytes, cut out, never re-encoded.
"""

from hashlib import sha256


def commitment(private: bytes) -> bytes:
    """Return the 32-byte commitment to the bytes of P."""
    return sha256(b"turnlog.private.1\n" + private).digest()


def event_hash(header_without_hash: bytes) -> bytes:
    """Return the 32-byte hash of an event, over the bytes of H before its last field."""
    return sha256(b"turnlog.event.1\n" + header_without_hash).digest()


def genesis(salt: bytes, stream: str) -> bytes:
    """Return what version 1 names as ``previous``: it binds the stream to its name until it is erased."""
    return sha256(b"turnlog.genesis.1\n" + salt + stream.encode()).digest()


def row_seal(*parts: str | int | bytes) -> bytes:
    """Return a checksum over a disposable row (a key, a snapshot), so that a damaged one is noticed, not believed."""
    digest = sha256(b"turnlog.row.1\n")
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()[:16]
