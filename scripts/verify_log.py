#!/usr/bin/env python3
"""Verify an export of a log without turnlog.

A second implementation of docs/format.md: standard library alone, no code of the package, so that a mistake there is
not repeated here. What it remembers grows with the number of sessions, not of events. Read ``Stream`` first.

    verify_log.py EXPORT [--heads FILE]     line-JSON, gzip or not; - is standard input

Exit code: 0 all is well; 1 something is wrong, every failing session is named; 2 a file is not what it should be.
"""

import argparse
import base64
import gzip
import json
import os
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

HASH = "[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]="  # 32 bytes; the bits left over are zero
SALT = "[A-Za-z0-9+/]{21}[AQgw]=="  # 16 bytes, likewise
TIME = "[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:[.][0-9]{1,6})?Z"
FINGERPRINT = re.compile("[A-Za-z0-9+/]{21}[AQgw](?:==|A=)")  # 16 bytes, or these and a zero byte
NUMBER = "[1-9][0-9]{0,18}"
BODY = r"\{[^\ud800-\udfff]*\}"  # to its end: no other field can follow a brace within a string or an object
TEXT = r'"[^"\\\ud800-\udfff]*(?:\\.[^"\\\ud800-\udfff]*)*"'
STATE = re.compile(
    r'\{"header":(?P<cut>\{"format":1,"event_id":"[!#-\[\]-~]+"'
    rf',"version":(?P<version>{NUMBER}),"topic":"(?P<topic>[A-Za-z][A-Za-z0-9]*\.v[1-9][0-9]*)"'
    rf',"recorded_at":"(?P<recorded_at>{TIME})","occurred_at":(?:null|"(?P<occurred_at>{TIME})")'
    rf',"turn":\[(?P<i>{NUMBER}),(?P<n>{NUMBER})\]'
    rf',"previous":"(?P<previous>{HASH})","commitment":"(?P<commitment>{HASH})"),"hash":"(?P<hash>{HASH})"\}}'
    rf',"private":(?:null|(?P<private>\{{"salt":"{SALT}","body":{BODY}'
    rf'(?:,"actor":{TEXT})?(?:,"correlation_id":{TEXT})?(?:,"causation_id":{TEXT})?'
    rf'(?:,"genesis":"(?P<genesis>{SALT})")?\}}))\}}'
)


class Damage(ValueError):
    """One thing that is wrong, in words."""


@dataclass(slots=True)
class Stream:
    """What must be remembered of a stream to check its next event."""

    name: str
    version: int = 0
    hash: str = ""
    deleted: bool = False
    turn: tuple[int, int] = (0, 0)
    recorded_at: datetime | None = None
    first: dict[bool, int] = field(default_factory=dict[bool, int])  # whether P is there: the first version

    def check(self, version: int, topic: str, state: str, kept: set[str]) -> None:
        """Check the next event and remember it, or raise ``Damage``."""
        if version != self.version + 1:
            raise Damage(f"expected version {self.version + 1}, found {version}")
        if not (event := STATE.fullmatch(state)):
            raise Damage("the stored bytes do not have the form of an event of format 1")
        if sha256_of("turnlog.event.1\n", event["cut"].encode()) != event["hash"]:
            raise Damage("the header does not match its hash")
        if (event["version"], event["topic"]) != (str(version), topic):
            raise Damage(f"the row says {version} {topic!a}, the header {event['version']} {event['topic']!a}")
        self._check_place(event)
        if event["private"]:
            self._check_content(event)
        if kept - {event["hash"]}:
            raise Damage("the head that was kept has another hash: this event or one before it was changed")
        self.first.setdefault(bool(event["private"]), version)
        self.version, self.hash, self.deleted = version, event["hash"], topic.startswith("SessionDeleted.")

    def _check_place(self, event: re.Match[str]) -> None:
        if self.version == 0 and not event["topic"].startswith("SessionStarted."):
            raise Damage(f"the first event is {event['topic']}, not SessionStarted")
        if self.version > 0 and event["previous"] != self.hash:
            raise Damage("the chain is broken: `previous` is not the hash of the version before")
        if self.deleted:
            raise Damage("an event follows SessionDeleted")
        turn, (i, n) = (int(event["i"]), int(event["n"])), self.turn
        if turn != ((1, turn[1]) if i == n else (i + 1, n)):
            raise Damage(f"a turn is not whole: event {turn[0]} of {turn[1]} follows event {i} of {n}")
        recorded_at = datetime.fromisoformat(event["recorded_at"])
        datetime.fromisoformat(event["occurred_at"] or event["recorded_at"])  # there is such a day
        if self.recorded_at is not None and recorded_at < self.recorded_at:
            raise Damage("recorded_at goes back")
        self.turn, self.recorded_at = turn, recorded_at

    def _check_content(self, event: re.Match[str]) -> None:
        private, genesis = event["private"].encode(), event["genesis"]
        if sha256_of("turnlog.private.1\n", private) != event["commitment"]:
            raise Damage("the content does not match its commitment")
        parse(private)
        if (genesis is not None) is not (self.version == 0):
            raise Damage("a salt of the genesis stands in version 1, and in no other")
        salted_name = base64.b64decode(genesis or "") + self.name.encode()
        if genesis and sha256_of("turnlog.genesis.1\n", salted_name) != event["previous"]:
            raise Damage("version 1 is not bound to this session's name")

    def check_end(self) -> tuple[int, str] | None:
        """Return what only the end of a stream shows to be wrong: a version and a reason."""
        if self.turn[0] != self.turn[1]:
            return self.version, f"the last turn is cut: event {self.turn[0]} of {self.turn[1]} is the last one there"
        if self.deleted in self.first:
            is_there = "still there, but the session was" if self.deleted else "gone, but the session was not"
            return self.first[self.deleted], f"the content is {is_there} deleted"
        return None


class Verification:
    """Reads one export and prints what fails: of each session its first bad event, and lines that cannot be read."""

    def __init__(self, first_line: bytes, heads: dict[str, dict[int, set[str]]]) -> None:
        form = fields(parse(first_line), turnlog=str, format=int, tenant=str, position=int)
        if form[:2] != ["export", 1]:
            raise Damage("it is not an export of format 1")
        self.prefix, self.last_position = f"{form[2]}/", form[3]
        self.streams: dict[str, Stream] = {}
        self.failing: set[str] = set()
        self.failures = self.events = self.keys = self.position = 0
        self.heads, self.ended = heads, False

    def read(self, lines: Iterator[bytes]) -> None:
        """Check every line, then what only the end shows."""
        try:
            for number, line in enumerate(lines, 2):
                try:
                    self._line(parse(line))
                except Damage as damage:
                    self._fail(f"line {number}", str(damage))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self._fail("the file", f"what is compressed in it is cut or damaged: {error}")
        if not self.ended:
            self._fail("the file", "it is cut: the line that ends an export is missing")
        for stream in self.streams.values():
            if (failure := stream.check_end()) is not None:
                self._fail_session(stream.name, *failure)
        for session, versions in self.heads.items():
            name = self.prefix + session
            there = f"ends at version {self.streams[name].version}" if name in self.streams else "is missing"
            for version in versions:
                self._fail_session(name, version, f"a head of this version was kept, but the session {there}")

    def _line(self, entry: dict[str, Any]) -> None:
        match list(entry) if not self.ended else None:
            case ["event"] if not self.keys:
                self.events += 1
                self._event(*fields(entry["event"], position=int, stream=str, version=int, topic=str, state=str))
            case ["key"]:
                self.keys += 1
                self._key(*fields(entry["key"], stream=str, kind=str, key=str, version=int, fingerprint=str))
            case ["end"]:
                self.ended = True
                if (said := fields(entry["end"], events=int, keys=int)) != [self.events, self.keys]:
                    raise Damage(f"it says {said} events and keys, but there are {[self.events, self.keys]}")
            case _:
                raise Damage("it is no event, key or end, or stands where none may")

    def _event(self, position: int, name: str, version: int, topic: str, state: str) -> None:
        stream = self.streams.setdefault(name, Stream(name))
        kept = self.heads.get(name.removeprefix(self.prefix), {}).pop(version, set[str]())
        try:
            if name not in self.failing:
                stream.check(version, topic, state, kept)
        except ValueError as error:
            self._fail_session(name, version, str(error))
        if not name.startswith(self.prefix):
            raise Damage(f"the stream {name!a} is not of this tenant")
        if not self.position < position <= self.last_position:
            raise Damage(f"position {position} does not rise, or is above {self.last_position}, the log's last")
        self.position = position

    def _key(self, name: str, kind: str, _: str, version: int, fingerprint: str) -> None:
        stream = self.streams.get(name, Stream(name))
        if stream.deleted or not 1 <= version <= stream.version:
            self._fail_session(name, version, "a key is left of an event that is not there or was erased")
        if kind not in {"message", "command"} or not FINGERPRINT.fullmatch(fingerprint):
            raise Damage("a key is of a message or a command, its fingerprint 16 bytes, or these and a zero byte")

    def _fail_session(self, name: str, version: int, reason: str) -> None:
        if name not in self.failing:
            self.failing.add(name)
            self._fail(f"session {json.dumps(name.removeprefix(self.prefix))}, version {version}", reason)

    def _fail(self, place: str, reason: str) -> None:
        self.failures += 1
        say(f"{place}: {reason}")


def sha256_of(prefix: str, data: bytes) -> str:
    """Return a hash as it is written in the log."""
    return base64.b64encode(sha256(prefix.encode() + data).digest()).decode()


def parse(line: bytes) -> dict[str, Any]:
    """Return the JSON object that ``line`` is."""
    try:
        return dict(**json.loads(line.decode()))  # refuses what is no object
    except (ValueError, TypeError, RecursionError) as error:
        raise Damage(f"it is no JSON object in UTF-8: {error}") from None


def fields(value: dict[str, Any], **types: type) -> list[Any]:
    """Return the values of an object that must have exactly these fields."""
    if type(value) is not dict or {name: type(value[name]) for name in value} != types:
        raise Damage(f"expected exactly the fields {', '.join(types)}")
    return [value[name] for name in types]


def read_heads(lines: Iterator[bytes]) -> dict[str, dict[int, set[str]]]:
    """Return the hashes that were kept: session, version, hash (of several, all must be right)."""
    heads: dict[str, dict[int, set[str]]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            session, version, text = fields(parse(line), session_id=str, version=int, hash=str)
        except Damage as damage:
            raise Damage(f"line {number} of the heads: {damage}") from None
        heads.setdefault(session, {}).setdefault(version, set()).add(text)
    return heads


def lines_of(path: str) -> Iterator[bytes]:
    """Yield the lines of a file, gzip or not, or of standard input."""
    with Path("/dev/stdin" if path == "-" else path).open("rb") as file:
        yield from gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else file


def say(line: str) -> None:
    """Print a line at once; who closed the pipe has read enough, and the exit code still tells."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Verify an export of a log without turnlog.")
    parser.add_argument("export", metavar="EXPORT", help="a file made by `turnlog export`; - is standard input")
    parser.add_argument("--heads", metavar="FILE", help="heads kept elsewhere, made by `turnlog heads`")
    options = parser.parse_args(arguments)
    lines = lines_of(options.export)
    try:
        heads = read_heads(lines_of(options.heads)) if options.heads else {}
        count = sum(len(hashes) for versions in heads.values() for hashes in versions.values())
        verification = Verification(next(lines, b""), heads)
        named = {verification.prefix + session for session in heads}
        verification.read(lines)
    except (OSError, EOFError, zlib.error, Damage) as error:
        print(f"verify_log.py: cannot verify {options.export}: {error}", file=sys.stderr)
        return 2
    seen = f"{len(verification.streams)} sessions, {verification.events} events"
    if options.heads:
        seen += f", {count} heads; {len(verification.streams.keys() - named)} sessions have none"
    say(f"FAILED: {verification.failures} failures in {seen}" if verification.failures else f"ok: {seen}")
    return 1 if verification.failures else 0


if __name__ == "__main__":
    sys.exit(main())
