"""Files of lines as people have them: plain or gzip, told apart by content; ``-`` is standard input."""

import gzip
import io
import itertools
import os
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from turnlog.domain.errors import InvalidInput

STANDARD_INPUT = "-"
_GZIP = b"\x1f\x8b"
_EXPORT = b'{"turnlog":"export"'
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)


class Lines:
    """An open binary file, iterated as (line number, line): numbers start at 1, blank lines are left out.

    Iterating raises ``InvalidInput`` if a compressed file is cut or damaged; the message says after which line.
    """

    def __init__(self, file: BinaryIO, name: str = "the file") -> None:
        self.name = name
        can_peek = hasattr(file, "peek") or file.seekable()
        self._raw = file if can_peek else io.BufferedReader(cast("io.RawIOBase", file))
        zipped = _peek(self._raw, len(_GZIP)) == _GZIP
        self._stream = gzip.GzipFile(fileobj=self._raw) if zipped else self._raw

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        stream = iter(self._stream)
        for number in itertools.count(1):
            with self._translating(f"after line {number - 1}" if number > 1 else "from its beginning"):
                line = next(stream, None)
            if line is None:
                return
            bare = line.removeprefix(_BYTE_ORDER_MARK).strip() if number == 1 else line.strip()
            if bare:
                yield number, bare

    def is_export(self) -> bool:
        """Return whether the first line is that of a log export (docs/import-format.md). Nothing is consumed."""
        try:
            return _peek(self._stream, len(_EXPORT)) == _EXPORT
        except _DAMAGED:
            return False

    @contextmanager
    def rewindable(self) -> Generator["Lines", None, None]:
        """Lend lines that can be read twice; what comes through a pipe is kept in a temporary file meanwhile."""
        if self._raw.seekable():
            yield self
            return
        with tempfile.TemporaryFile() as spool:
            with self._translating("on its way here"):
                shutil.copyfileobj(self._stream, spool)
            spool.seek(0)
            yield Lines(cast("BinaryIO", spool), self.name)

    def rewind(self) -> None:
        """Begin again at the first line."""
        self._stream.seek(0)

    def progress_bytes(self) -> tuple[int, int | None]:
        """Return how far it is read and its size, in bytes as they lie there; (0, None) for a pipe."""
        if not self._raw.seekable():
            return 0, None
        try:
            status = os.fstat(self._raw.fileno())
        except OSError:
            return self._raw.tell(), None
        return self._raw.tell(), status.st_size if stat.S_ISREG(status.st_mode) else None

    @contextmanager
    def _translating(self, where: str) -> Generator[None, None, None]:
        try:
            yield
        except _DAMAGED as error:
            raise InvalidInput(self.name, f"the compressed file is cut or damaged {where} ({error})") from error


@contextmanager
def open_lines(path: str | Path) -> Generator[Lines, None, None]:
    """Open a file of lines, or standard input for ``-``.

    Raises:
        OSError: it cannot be opened.
    """
    if str(path) == STANDARD_INPUT:
        yield Lines(sys.stdin.buffer, "standard input")
        return
    with Path(path).open("rb") as file:
        yield Lines(file, str(path))


def _peek(stream: BinaryIO | gzip.GzipFile | io.BufferedReader, n: int) -> bytes:
    if hasattr(stream, "peek"):
        return cast("io.BufferedReader", stream).peek(n)[:n]
    place = stream.tell()
    head = stream.read(n)
    stream.seek(place)
    return head
