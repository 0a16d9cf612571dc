"""docs/format.md: its example follows from its own rules, and it says what the package writes."""

import json
import re
import shutil
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import msgspec
import pytest

from scripts.verify_log import main
from turnlog.domain.envelope import NewEvent, NewPrivate, OpenHeader, erase, header_of, private_of, seal
from turnlog.domain.events import TOPICS, ForkPoint, ReplacementMessage

FORMAT = (Path(__file__).parents[1] / "docs" / "format.md").read_text(encoding="utf-8")
BLOCKS: dict[str, str] = dict(re.findall(r"^```\w+ example-(\S+)\n(.*?)\n```$", FORMAT, re.MULTILINE | re.DOTALL))
TYPES: dict[object, str] = {
    str: "string",
    int: "integer",
    bool: "boolean",
    datetime: "time",
    Any: "JSON",
    ForkPoint: "`ForkPoint`",
    dict[str, Any]: "object",
    list[dict[str, Any]]: "array of objects",
    tuple[str, ...]: "array of strings",
    tuple[ReplacementMessage, ...]: "array of `ReplacementMessage`",
}


def hashed(prefix: bytes, data: bytes) -> str:
    """Return a hash as the document says."""
    return b64encode(sha256(prefix + data).digest()).decode()


def test_the_example_follows_from_the_rules() -> None:
    """The document's hashes are those of the document's bytes, cut as it says, by hashlib alone."""
    found: list[str] = []
    headers: list[dict[str, Any]] = []
    for name in ("state-1", "state-2"):
        before, _, after = BLOCKS[name].encode().partition(b',"private":')
        cut = before.removeprefix(b'{"header":')[:-55]
        found += [hashed(b"turnlog.private.1\n", after[:-1]), hashed(b"turnlog.event.1\n", cut)]
        headers.append(json.loads(BLOCKS[name])["header"])
    salt = b64decode(json.loads(BLOCKS["state-1"])["private"]["genesis"])
    found.append(hashed(b"turnlog.genesis.1\n", salt + b"default/user-alice"))
    one, two = headers
    assert found == [one["commitment"], one["hash"], two["commitment"], two["hash"], one["previous"]]
    assert found == BLOCKS["hashes"].splitlines()
    assert two["previous"] == one["hash"]


@pytest.mark.skipif(not shutil.which("openssl"), reason="NOT TESTED: the commands of docs/format.md need openssl")
def test_the_commands_print_what_the_document_says() -> None:
    """The document's shell commands print the document's hashes."""
    done = subprocess.run(["/bin/sh", "-euc", BLOCKS["check"]], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == BLOCKS["hashes"].splitlines()


@pytest.mark.parametrize("name", ["state-1", "state-2"])
def test_turnlog_seals_the_example_to_the_same_bytes(name: str) -> None:
    """What the package writes for the example's event is the document's bytes."""
    state = BLOCKS[name].encode()
    header, private = header_of(state), private_of(state)
    assert private is not None
    new = NewEvent(
        originator_id="default/user-alice",
        originator_version=header.version,
        topic=header.topic,
        event=msgspec.json.decode(private.body, type=TOPICS[header.topic]),
        event_id=header.event_id,
        recorded_at=header.recorded_at,
        occurred_at=header.occurred_at,
        turn=header.turn,
        previous=header.previous,
        salt=private.salt,
        genesis=private.genesis,
        actor=private.actor,
        correlation_id=private.correlation_id,
        causation_id=private.causation_id,
    )
    assert seal(new) == (state, header.hash)


def test_the_exports_belong_together_and_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The document's export and its erased form verify against its head, and hold the states shown."""
    for name in ("export", "erased", "heads"):
        (tmp_path / name).write_text(BLOCKS[name] + "\n", encoding="utf-8")
    for name, events in (("export", 2), ("erased", 3)):
        assert main([str(tmp_path / name), "--heads", str(tmp_path / "heads")]) == 0
        assert capsys.readouterr().out == f"ok: 1 sessions, {events} events, 1 heads; 0 sessions have none\n"
    states = [BLOCKS["state-1"].encode(), BLOCKS["state-2"].encode()]
    assert states_of("export") == states
    assert states_of("erased")[:2] == [erase(state) for state in states]


def states_of(name: str) -> list[bytes]:
    """Return the stored bytes of an example's events."""
    entries = [json.loads(line) for line in BLOCKS[name].splitlines()]
    return [entry["event"]["state"].encode() for entry in entries if "event" in entry]


def test_the_tables_of_h_and_p_are_the_packages() -> None:
    """The document lists the fields of H and P in the order in which the package stores them."""
    of_h = FORMAT.split("### H, the header")[1].split("### P, the private part")[0]
    of_p = FORMAT.split("### P, the private part")[1].split("### Where to cut")[0]
    assert re.findall(r"^\| `(\w+)` \|", of_h, re.MULTILINE) == [*OpenHeader.__struct_fields__, "hash"]
    assert re.findall(r"^\| `(\w+)` \|", of_p, re.MULTILINE) == list(NewPrivate.__struct_fields__)


def test_the_tables_of_events_are_the_packages() -> None:
    """The document lists every topic with its fields, types and defaults, no more and no less."""
    section = FORMAT.split("## Events")[1].split("### How topics change")[0]
    assert re.findall(r"^\| `.*\|$", section, re.MULTILINE) == [*event_rows(), *part_rows()]


def event_rows() -> list[str]:
    """Return the rows of the table of topics."""
    return [f"| `{topic}` | {', '.join(body_fields(cls)) or 'none'} |" for topic, cls in TOPICS.items()]


def part_rows() -> list[str]:
    """Return the rows of the table of what occurs inside bodies."""
    return [f"| `{cls.__name__}` | {', '.join(body_fields(cls))} |" for cls in (ForkPoint, ReplacementMessage)]


def body_fields(cls: type[msgspec.Struct]) -> Iterator[str]:
    """Yield each field of a body as the document writes it."""
    for info in msgspec.structs.fields(cls):
        arms: tuple[object, ...] = get_args(info.type)
        hint = next(arm for arm in arms if arm is not NoneType) if NoneType in arms else info.type
        default: Any = None if info.default is msgspec.NODEFAULT else info.default
        if info.default_factory is not msgspec.NODEFAULT:
            default = info.default_factory()
        text = "" if default is None else f" = `{msgspec.json.encode(default).decode()}`"
        yield f"`{info.name}`{'' if info.required else '?'}: {TYPES[hint]}{text}"
