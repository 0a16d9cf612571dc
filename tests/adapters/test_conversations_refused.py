"""Importing conversations: what is refused, by file and line, and how files may look."""

import gzip
import json
import os
from pathlib import Path

import pytest

import turnlog
from tests.adapters.talks import Json, Write, call, result, said, talk
from turnlog.adapters.transfer.conversations import import_files

BAD_LINES: dict[str, tuple[Json | str, str]] = {
    "not JSON": ("{", "is not JSON"),
    "a key twice": ('{"conversation_id": "bad", "events": [], "meta": {"a": 1, "b": 2, "a": 3}}', "'a' stands twice"),
    "a parent beside one in the metadata": (
        talk(said("x", parent_id="p", metadata={"parent_id": "q"}), conversation_id="bad"),
        "events[0].metadata.parent_id",
    ),
    "a rank beside one in the metadata": (
        talk(said("x", rank=None, metadata={"rank": 1}), conversation_id="bad"),
        "events[0].metadata.rank",
    ),
    "not an object": ("[1]", "object"),
    "not UTF-8 inside": ('{"conversation_id": "\\ud800", "events": []}', ""),
    "no events": ({"conversation_id": "bad"}, "events"),
    "no id": ({"events": []}, "conversation_id"),
    "an empty id": (talk(conversation_id=""), "conversation_id"),
    "a control character in the id": (talk(conversation_id="a\nb"), "conversation_id"),
    "a field that is not known": (talk(conversation_id="bad", colour="red"), "colour"),
    "an event that is not known": (talk({"type": "smell"}, conversation_id="bad"), "smell"),
    "a field of an event that is not known": (talk(said("x", mood="good"), conversation_id="bad"), "mood"),
    "a role that is not known": (talk(said("x", "king"), conversation_id="bad"), "events[0].role"),
    "a content that is none": (talk(said(7), conversation_id="bad"), "events[0].content"),
    "a content that is missing": (talk({"type": "message", "role": "user"}, conversation_id="bad"), "content"),
    "a result without a call": (talk(call("t"), result("u", 1), conversation_id="bad"), "events[1].id: no earlier"),
    "a message after the end": (
        talk({"type": "status", "status": "completed"}, said("x"), conversation_id="bad"),
        "events[1]: session 'bad' is completed",
    ),
    "a status that is not known": (talk({"type": "status", "status": "odd"}, conversation_id="bad"), "odd"),
    "a message id twice": (
        talk(said("x", message_id="m"), said("y", message_id="m"), conversation_id="bad"),
        "events[1].message_id",
    ),
    "a time out of range": (talk(said("x", ts=1e30), conversation_id="bad"), "events[0].ts"),
    "a number JSON has not": ('{"conversation_id": "bad", "events": [], "meta": {"a": NaN}}', ""),
    "too deep": (
        '{"conversation_id": "bad", "events": [{"type": "data", "values": {"a": ' + "[" * 70 + "]" * 70 + "}}]}",
        "events[0].values",
    ),
    "far too deep": ('{"conversation_id": "bad", "events": [], "meta": {"a": ' + "[" * 9999 + "]" * 9999 + "}}", ""),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_is_refused_by_file_and_line_and_the_others_are_imported(
    store: turnlog.ConversationStore, write: Write, case: str
) -> None:
    """Nothing of a bad line is written, it is named with the reason, and the lines around it are imported."""
    line, reason = BAD_LINES[case]
    path = write(talk(said("a")), line, talk(said("b"), conversation_id="c2"))
    report = import_files(store, [path], check=True)
    assert (report.imported, report.refused, report.ok) == (2, 1, False)
    ((file, number, why),) = [(one.file, one.line, one.reason) for one in report.refusals]
    assert (file, number) == (str(path), 2)
    assert reason in why
    assert {session.session_id for session in store.sessions().items} == {"c1", "c2"}


def test_what_is_not_utf_8_is_named_as_that(store: turnlog.ConversationStore, tmp_path: Path) -> None:
    """The reason names the encoding, and the byte."""
    line = json.dumps(talk(said("é")), ensure_ascii=False)
    (tmp_path / "latin").write_bytes(f"{line}\n".encode("latin-1"))
    ((number, reason),) = [(one.line, one.reason) for one in import_files(store, [tmp_path / "latin"]).refusals]
    assert (number, reason) == (1, f"is not UTF-8: byte 0xe9 at index {line.index('é')}")


def test_a_file_printed_over_several_lines_is_refused_once(
    store: turnlog.ConversationStore, tmp_path: Path, write: Write
) -> None:
    """Such a file is one refusal that says how it should be, not one a line; the next file is imported."""
    (tmp_path / "pretty").write_text("\n" + json.dumps(talk(said("x")), indent=2), encoding="utf-8")
    report = import_files(store, [tmp_path / "pretty", write(talk(said("y"), conversation_id="c2"))])
    ((number, reason),) = [(one.line, one.reason) for one in report.refusals]
    assert (number, report.imported) == (2, 1)
    assert "one conversation per line" in reason


def test_an_id_that_is_taken_is_refused(store: turnlog.ConversationStore, write: Write) -> None:
    """Another conversation of the same id adds nothing to the one that is there, imported or not."""
    store.session("mine").add_message("user", "mine")
    path = write(talk(said("a")), talk(said("b")), talk(said("c"), conversation_id="mine"))
    report = import_files(store, [path])
    assert [(one.line, one.reason) for one in report.refusals] == [
        (2, "session 'c1' is there already, and is not this conversation"),
        (3, "session 'mine' is there already, and is not this conversation"),
    ]
    assert [message.content for message in store.get("c1").history()] == ["a"]
    assert [message.content for message in store.get("mine").history()] == ["mine"]


def test_what_was_erased_does_not_come_back(store: turnlog.ConversationStore, write: Write) -> None:
    """Importing a conversation whose session was deleted since is refused."""
    path = write(talk(said("a")))
    import_files(store, [path])
    store.get("c1").delete()
    report = import_files(store, [path])
    assert [one.reason for one in report.refusals] == ["session 'c1' was deleted"]
    assert not store.exists("c1")


def test_compressed_files_are_told_by_their_content(store: turnlog.ConversationStore, tmp_path: Path) -> None:
    """Under any name gzip is read, and a byte order mark, blank lines and a missing last line break are too."""
    lines = [json.dumps(talk(said("x"), conversation_id=f"c{i}")) for i in range(3)]
    (tmp_path / "plain.gz").write_text(f"\ufeff{lines[0]}\n\n  \n{lines[1]}", encoding="utf-8")
    (tmp_path / "packed.txt").write_bytes(gzip.compress(lines[2].encode()))
    (tmp_path / "empty").write_bytes(b"")
    report = import_files(store, [tmp_path / name for name in ("plain.gz", "packed.txt", "empty")])
    assert (report.files, report.imported, report.ok) == (3, 3, True)


def test_a_cut_compressed_file_says_where(store: turnlog.ConversationStore, tmp_path: Path) -> None:
    """What could be read is imported; the rest is named, and the next file is read."""
    lines = "".join(json.dumps(talk(said(os.urandom(2000).hex()), conversation_id=f"c{i}")) + "\n" for i in range(50))
    packed = gzip.compress(lines.encode())
    (tmp_path / "cut.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "next").write_text(json.dumps(talk(said("x"), conversation_id="next")), encoding="utf-8")
    report = import_files(store, [tmp_path / "cut.gz", tmp_path / "next"])
    ((file, line, reason),) = [(one.file, one.line, one.reason) for one in report.refusals]
    assert file == str(tmp_path / "cut.gz")
    assert 0 < line == report.imported - 1 < 50
    assert "cut or damaged" in reason
    assert store.exists("next")


def test_a_file_that_is_not_there_is_named(store: turnlog.ConversationStore, tmp_path: Path, write: Write) -> None:
    """A file that cannot be opened is refused as line 0, and the next one is imported."""
    report = import_files(store, [tmp_path / "absent", write(talk(said("x")))])
    assert [(one.file, one.line) for one in report.refusals] == [(str(tmp_path / "absent"), 0)]
    assert report.imported == 1
