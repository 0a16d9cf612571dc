"""How many erased words stay in the file where it is not rewritten: ``python -m tests.erasure.measure [rounds]``.

A random workload of inserts, page splits and updates; then one person is erased, and the words are searched for in the
bytes after ``scrub(vacuum=False)`` and again after ``scrub()``.
"""

import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import turnlog
from tests.erasure.planting import BIG, Words, converse, remains


def main(rounds: int) -> int:
    """Print a line a round; return how many words were left by the scrub that rewrites the file."""
    left = 0
    for seed in range(rounds):
        with TemporaryDirectory() as directory:
            quick, planted, whole = measured(Path(directory), random.Random(seed))  # noqa: S311 - a workload, no secret
        sys.stdout.write(f"seed {seed}: of {planted} words, {quick} left without VACUUM, {whole} with it\n")
        left += whole
    return left


def measured(directory: Path, chance: random.Random) -> tuple[int, int, int]:
    """Return how many words were left without VACUUM, how many there had been, and how many were left with it."""
    people = [Words(f"person{n}") for n in range(4)]
    with turnlog.open(f"sqlite:///{directory}/sessions.db", durability="normal") as store:
        sessions = [
            converse(store, f"{n}-{i}", words, chance.choice((0, 300, BIG)))
            for i in range(2)
            for n, words in enumerate(people)
        ]
        for _ in range(600):
            n = chance.randrange(len(sessions))
            session, words = sessions[n], people[n % len(people)]
            message_id = words("message-id")
            session.add_message("user", words("said", chance.randrange(3_000)), message_id=message_id)
            if chance.random() < 0.3:
                session.edit_message(message_id, words("edited", chance.randrange(6_000)))
            if chance.random() < 0.1:
                session.remove_message(message_id)
            if chance.random() < 0.1:
                store.catch_up()
        store.messages(user_id=people[0].user)
        store.erase_user(people[0].user)
        store.scrub(vacuum=False)
        quick = len(remains(directory, people[0]))
        store.scrub()
        return quick, len(people[0].planted), len(remains(directory, people[0]))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5) > 0)
