"""Deciding anew, where a writer keeps the others out and where nothing does: a recorder keeps one of the two."""

import threading
from collections.abc import Sequence

from turnlog.domain.recorder import Batch, Reader, Recorder
from turnlog.testing.contracts.rows import Patience, S, T, batch, grow, tombstone, write


class LockedContract(Patience):
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
        threads[0].join(self.patience_s)
        assert recorder.select_stream(T)[0][0] > position


class UnlockedContract(Patience):
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
            return (batch(S, 1, before=rows, words="mine"),)

        recorder.append((batch(S, 2, words="mine"),), again)
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
        erasing.join(self.patience_s)
        assert recorder.select_stream(S)[-1][0] > position
