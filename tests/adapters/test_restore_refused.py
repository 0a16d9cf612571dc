"""Restoring a file that is cut or damaged: it says where, and writes nothing."""

import base64
import io
from collections.abc import Callable

import pytest

import turnlog
from tests.adapters.exports import Json, Store, exported, lines_of, packed
from turnlog.adapters.transfer.restore import restore_log


def test_a_file_cut_after_any_line_is_noticed_and_changes_nothing(full: Store, empty: Store) -> None:
    """However much of the end is missing, the restore fails and nothing was written."""
    lines = exported(full).splitlines(keepends=True)
    for n in range(len(lines)):
        with pytest.raises(turnlog.InvalidInput):
            restore_log(empty, io.BytesIO(b"".join(lines[:n])))
        with pytest.raises(turnlog.InvalidInput):
            restore_log(empty, io.BytesIO(b"".join(lines[:n]) + lines[n][: len(lines[n]) // 2]))
    assert empty.position == 0


Damage = Callable[[list[Json]], object]


def first(lines: list[Json], kind: str) -> Json:
    """Return the first line of a kind."""
    found: Json = next(line[kind] for line in lines if kind in line)
    return found


def reseal(event: Json, old: str, new: str) -> None:
    """Change the text of an event, as somebody would who does not know of the hashes."""
    assert old in event["state"]
    event["state"] = event["state"].replace(old, new)


def swap(lines: list[Json], i: int, j: int) -> None:
    """Exchange two lines but not their positions."""
    a, b = lines[i]["event"], lines[j]["event"]
    a["position"], b["position"] = b["position"], a["position"]
    lines[i], lines[j] = lines[j], lines[i]


DAMAGES: dict[str, tuple[Damage, type[Exception], str]] = {
    "another word in a message": (
        lambda lines: reseal(lines[3]["event"], "Größe", "Gruß"),
        turnlog.CorruptLog,
        "session 'one', version 2: the content does not match",
    ),
    "an event left out": (lambda lines: lines.pop(3), turnlog.CorruptLog, "session 'one'"),
    "the last event of a session left out": (
        lambda lines: [lines.pop(7), lines[-1]["end"].update(events=13)],
        turnlog.InvalidInput,
        "a key names an event",
    ),
    "two events exchanged": (lambda lines: swap(lines, 1, 3), turnlog.CorruptLog, "session 'one'"),
    "an event of a turn left out": (lambda lines: lines.pop(5), turnlog.CorruptLog, "session 'two/with a slash'"),
    "a turn without its end": (
        lambda lines: lines.pop(6),
        turnlog.CorruptLog,
        "session 'two/with a slash', version 5: expected version 4, found 5",
    ),
    "a session of another name": (
        lambda lines: [
            line["event"].update(stream="default/x")
            for line in lines
            if line.get("event", {}).get("stream") == "default/one"
        ],
        turnlog.CorruptLog,
        "session 'x', version 1: version 1 is not bound",
    ),
    "an event that is not known": (
        lambda lines: lines[1]["event"].update(topic="Smelled.v1"),
        turnlog.CorruptLog,
        "session 'one', version 1",
    ),
    "a state that is none": (lambda lines: lines[1]["event"].update(state="{}"), turnlog.CorruptLog, "session"),
    "a stream of another tenant": (
        lambda lines: lines[1]["event"].update(stream="other/one"),
        turnlog.InvalidInput,
        "line 2: the session",
    ),
    "a position twice": (
        lambda lines: lines[2]["event"].update(position=1),
        turnlog.InvalidInput,
        "line 3: position 1",
    ),
    "a position after the end": (
        lambda lines: lines[0].update(position=3),
        turnlog.InvalidInput,
        "position 4 is not above 3 and up to 3",
    ),
    "another tenant": (lambda lines: lines[0].update(tenant="x"), turnlog.InvalidInput, "of tenant 'x'"),
    "a newer format": (lambda lines: lines[0].update(format=2), turnlog.InvalidInput, "format 2"),
    "another file": (lambda lines: lines[0].update(turnlog="import"), turnlog.InvalidInput, "line 1: this is not"),
    "no first line": (lambda lines: lines.pop(0), turnlog.InvalidInput, "line 1: this is not"),
    "a line of another kind": (lambda lines: lines.insert(2, {"what": 1}), turnlog.InvalidInput, "line 3: it is not"),
    "a line of no kind": (lambda lines: lines.insert(2, {}), turnlog.InvalidInput, "line 3: expected exactly one"),
    "an event after the keys": (
        lambda lines: lines.insert(-1, {"event": {**lines[1]["event"], "position": lines[0]["position"]}}),
        turnlog.InvalidInput,
        "",
    ),
    "something after the end": (
        lambda lines: lines.append({"end": {"events": 0, "keys": 0}}),
        turnlog.InvalidInput,
        "follows the end",
    ),
    "another count of events": (
        lambda lines: lines[-1]["end"].update(events=1),
        turnlog.InvalidInput,
        "it says 1 events",
    ),
    "another count of keys": (lambda lines: lines[-1]["end"].update(keys=1), turnlog.InvalidInput, "1 keys"),
    "a key of no session": (
        lambda lines: first(lines, "key").update(stream="default/none"),
        turnlog.InvalidInput,
        "is not here",
    ),
    "a key of no version": (lambda lines: first(lines, "key").update(version=99), turnlog.InvalidInput, "is not here"),
    "a key of another kind": (lambda lines: first(lines, "key").update(kind="door"), turnlog.InvalidInput, "'door'"),
    "a short fingerprint": (
        lambda lines: first(lines, "key").update(fingerprint=base64.b64encode(b"short").decode()),
        turnlog.InvalidInput,
        "fingerprint",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_file_is_refused_by_place_and_changes_nothing(full: Store, empty: Store, case: str) -> None:
    """Whatever was changed in a file, the restore names it and writes nothing."""
    damage, error, words = DAMAGES[case]
    lines = lines_of(exported(full))
    damage(lines)
    with pytest.raises(error) as caught:
        restore_log(empty, packed(lines))
    assert words in str(caught.value)
    assert empty.position == 0


def test_content_that_is_missing_without_an_erasure_is_refused(full: Store, empty: Store) -> None:
    """An export in which content is null, of a session that was never deleted, does not verify."""
    lines = lines_of(exported(full))
    state = lines[3]["event"]["state"]
    lines[3]["event"]["state"] = state[: state.index(',"private":')] + ',"private":null}'
    with pytest.raises(turnlog.CorruptLog):
        restore_log(empty, packed(lines))
    assert empty.position == 0
