"""What turnlog's keys in Redis are called. All of a session have its name in braces: they are in one slot of a cluster.

Of a log with the prefix ``turnlog:``

- ``turnlog:{log}:head`` the position given last; ``…:order`` (a stream) which event is at which position; ``…:names``
  (a sorted set) the streams; ``…:deadlines`` (a sorted set) when sessions expire, in milliseconds; ``…:lives`` (a
  hash) how long they live; ``…:expired`` how many have; ``…:tracking`` (a hash) what is tracked; ``…:reserved`` (a
  hash) streams that an append to several partitions is to write; ``…:joint`` (a hash) those appends, see joint.py;
- ``turnlog:{TENANT/SESSION}:events`` (a stream), ``…:keys`` (a hash), ``…:snapshot``, ``…:reading`` (a sorted set, for
  as long as somebody decides by what he read there);
- ``turnlog:{views}:…`` what views hold, see tables.py.
"""

import re

from turnlog.domain.errors import InvalidInput

DEFAULT_PREFIX = "turnlog:"
_PREFIX = re.compile(r"[!-z|~]{1,200}", re.ASCII)
"""ASCII that can be seen, without braces: those say which part of a key decides on its slot."""


class Keys:
    """Names of keys, as bytes."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        log = f"{prefix}{{log}}:"
        self.head, self.order = f"{log}head".encode(), f"{log}order".encode()
        self.names, self.deadlines = f"{log}names".encode(), f"{log}deadlines".encode()
        self.lives, self.expired, self.tracking = (
            f"{log}lives".encode(),
            f"{log}expired".encode(),
            f"{log}tracking".encode(),
        )
        self.reserved = f"{log}reserved".encode()
        self.views = f"{prefix}{{views}}:".encode()
        self.lease = self.views + b"lease"

    def events(self, stream: str) -> bytes:
        """Return the key of a stream's events."""
        return self._of(stream, "events")

    def keys(self, stream: str) -> bytes:
        """Return the key of a stream's idempotency keys."""
        return self._of(stream, "keys")

    def snapshot(self, stream: str) -> bytes:
        """Return the key of a stream's snapshot."""
        return self._of(stream, "snapshot")

    def reading(self, stream: str) -> bytes:
        """Return the key of those who decide by what they read in a stream."""
        return self._of(stream, "reading")

    def shared(self) -> tuple[bytes, ...]:
        """Return the keys of the whole log in the order in which the scripts that write take them."""
        order = (self.head, self.order, self.names, self.deadlines)
        return (*order, self.lease, self.tracking, self.lives, self.expired, self.reserved)

    def of(self, stream: str) -> tuple[bytes, ...]:
        """Return the keys of a stream in the order in which those scripts take them."""
        return (self.events(stream), self.keys(stream), self.snapshot(stream), self.reading(stream))

    def _of(self, stream: str, what: str) -> bytes:
        name = stream.replace("%", "%25").replace("}", "%7D") if "}" in stream or "%" in stream else stream
        return f"{self.prefix}{{{name}}}:{what}".encode()


class OneSlot(Keys):
    """The same in one slot of a cluster, streams and all: ``turnlog:{SLOT}:events:TENANT/SESSION``."""

    def __init__(self, prefix: str, slot: str) -> None:
        super().__init__(prefix)
        self._begins = f"{prefix}{{{slot}}}:"
        begins = self._begins.encode()
        self.head, self.order, self.names = begins + b"head", begins + b"order", begins + b"names"
        self.deadlines, self.lives, self.expired = begins + b"deadlines", begins + b"lives", begins + b"expired"
        self.tracking, self.lease, self.reserved = begins + b"tracking", begins + b"lease", begins + b"reserved"

    def _of(self, stream: str, what: str) -> bytes:
        return f"{self._begins}{what}:{stream}".encode()


def chosen_prefix(of_url: object, given: object) -> str:
    """Return a prefix of keys: 1 to 200 visible ASCII characters, without braces.

    Raises:
        InvalidInput: it is none, or URL and option name two.
    """
    if of_url is not None and given is not None and of_url != given:
        raise InvalidInput("prefix", "the URL names another one")
    chosen = given if given is not None else of_url if of_url is not None else DEFAULT_PREFIX
    if not isinstance(chosen, str) or not _PREFIX.fullmatch(chosen):
        raise InvalidInput("prefix", f"expected 1 to 200 visible ASCII characters without braces, got {chosen!r:.100}")
    return chosen
