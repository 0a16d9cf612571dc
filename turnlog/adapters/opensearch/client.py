"""One connection to a cluster, by opensearch-py: what a URL says, requests, and the driver's errors in our words.

The driver is untyped here: requests go through its transport, which balances hosts and keeps connections alive.
"""

import re
import ssl
from collections.abc import Collection, Iterable, Mapping
from time import sleep
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec
from opensearchpy import OpenSearch
from opensearchpy.exceptions import OpenSearchException, TransportError

from turnlog.domain.errors import InvalidInput, StoreError, StoreUnavailable
from turnlog.domain.typed import converter

PORT = 9200
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)
"""After them a bulk request is sent again to a cluster that has too much to do."""
_EXPECTED = "expected opensearch://user:password@host:9200 (or opensearch+https://…; several hosts with commas)"
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::(\d{1,5}))?")
_OK, _BAD_REQUEST, _NOT_FOUND, _CONFLICT, _TOO_MANY, _SERVERS_FAULT = 200, 400, 404, 409, 429, 500
_PASSING = frozenset({401, 403, 404, 408})
"""Statuses that need not be for good: rights, disks and indices come back."""
_encode = msgspec.json.Encoder().encode


class _Busy(StoreUnavailable):
    """The cluster has too much to do, or no memory to spare: it asks to be asked later."""


class Address(NamedTuple):
    """What a URL says."""

    hosts: tuple[tuple[str, int], ...]
    secure: bool
    user: str | None = None
    password: str | None = None

    def __str__(self) -> str:
        """Return it as it may stand in a message: without user and password."""
        return ",".join(f"{host}:{port}" for host, port in self.hosts)


def address(url: str) -> Address:
    """Read ``opensearch://user:password@host:port,host:port``; ``opensearch+https`` speaks TLS.

    Raises:
        InvalidInput: it is no such URL.
    """
    scheme, mark, rest = url.partition("://")
    login, at, hosts = rest.rstrip("/").rpartition("@")
    found = [_HOST.fullmatch(host) for host in hosts.split(",")]
    if not mark or scheme not in ("opensearch", "opensearch+http", "opensearch+https") or None in found:
        raise InvalidInput("url", _EXPECTED)
    user, _, password = login.partition(":")
    return Address(
        tuple((one[1], int(one[2] or PORT)) for one in found if one is not None),
        scheme.endswith("s"),
        unquote(user) if at else None,
        unquote(password) if at else None,
    )


class Answer(NamedTuple):
    """What the server said: ``status`` is 200, or one of those that the request had accepted."""

    status: int
    body: Any

    @property
    def reason(self) -> str:
        """The type of the error and its reason, in the server's words."""
        return _reason(self.body)


class Rejected(NamedTuple):
    """A document that the server will not take, whenever it is asked."""

    id: str
    reason: str


class Client:
    """Speaks to one cluster. Safe to share between threads.

    Args:
        timeout_s: how long a request may take.
        ca_certs: a file of certificates to trust; with ``verify`` off none is asked for.
    """

    def __init__(self, url: str, *, timeout_s: float, ca_certs: str | None = None, verify: bool = True) -> None:
        self.address = address(url)
        at = self.address
        options: dict[str, Any] = {"timeout": timeout_s, "max_retries": 2, "retry_on_timeout": False}
        if at.user is not None:
            options["http_auth"] = (at.user, at.password or "")
        if at.secure:
            options |= {"use_ssl": True, "verify_certs": verify, "ssl_show_warn": False, "ca_certs": ca_certs}
        self._driver: Any = OpenSearch(hosts=[{"host": host, "port": port} for host, port in at.hosts], **options)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        accept: Collection[int] = (),
        lines: bool = False,
        **parameters: object,
    ) -> Answer:
        """Send a request. ``accept``: statuses that are answers too. ``lines``: the body is encoded, JSON by lines.

        Raises:
            StoreUnavailable: the cluster cannot be reached, or cannot do it now.
            StoreError: it refuses, for good.
        """
        given: dict[str, Any] = {name: _text(value) for name, value in parameters.items()}
        if accept:
            given["ignore"] = tuple(accept)
        sent = body if lines or body is None else _encode(body)
        kind = "application/x-ndjson" if lines else "application/json"
        try:
            said = self._driver.transport.perform_request(
                method, path, params=given, body=sent, headers={"content-type": kind} if sent is not None else None
            )
        except OpenSearchException as error:
            raise self._translated(error) from error
        return Answer(_status(said, accept), said)

    def bulk(self, operations: Iterable[bytes]) -> list[Rejected]:
        """Send operations that are encoded already; return those that can never be done.

        A version that is older than what is there is nothing to complain of, nor is a deletion of what is not there.

        Raises:
            StoreUnavailable: some could not be done now. The others may have been.
        """
        body = b"".join(operations)
        for pause_s in PAUSES_S:
            try:
                return self._bulk(body)
            except _Busy:
                sleep(pause_s)
        return self._bulk(body)

    def _bulk(self, body: bytes) -> list[Rejected]:
        said = self.ask("POST", "/_bulk", body, lines=True).body
        if not said["errors"]:
            return []
        results: list[Mapping[str, Any]] = [result for item in said["items"] for result in item.values()]
        bad = [one for one in results if "error" in one and one["status"] != _CONFLICT]
        for one in bad:
            if one["status"] != _BAD_REQUEST:
                raise (_Busy if one["status"] == _TOO_MANY else StoreUnavailable)(self.words(_reason(one)))
        return [Rejected(one["_id"], _reason(one)) for one in bad]

    def words(self, reason: str) -> str:
        """Return a reason with the place."""
        return f"OpenSearch at {self.address}: {reason:.500}"

    def close(self) -> None:
        """Close the connections."""
        self._driver.close()

    def _translated(self, error: OpenSearchException) -> StoreError:
        if not isinstance(error, TransportError):
            return StoreUnavailable(self.words(type(error).__name__))
        status = error.status_code
        if not isinstance(status, int):
            refused = _certificate(error)
            if refused is not None:
                why = f"its certificate is refused ({refused}); ca_certs names the authority to trust"
                return StoreUnavailable(self.words(why))
            return StoreUnavailable(self.words(f"it cannot be reached ({type(error).__name__})"))
        reason = _reason(error.info) or type(error).__name__
        if status == _TOO_MANY:
            return _Busy(self.words(f"{reason} ({status})"))
        passing = status >= _SERVERS_FAULT or status in _PASSING
        return (StoreUnavailable if passing else StoreError)(self.words(f"{reason} ({status})"))


def _certificate(error: BaseException) -> str | None:
    """Return why a server's certificate is not believed, if that is what was wrong."""
    cause: BaseException | None = error
    while cause is not None:
        inner = next((one for one in (cause, *cause.args) if isinstance(one, ssl.SSLCertVerificationError)), None)
        if inner is not None:
            return inner.verify_message
        cause = cause.__cause__ or cause.__context__
    return None


def _text(value: object) -> object:
    return ("true" if value else "false") if isinstance(value, bool) else value


class _Error(msgspec.Struct):
    """What the server says of an error."""

    type: str = ""
    reason: str | None = None
    caused_by: "_Error | None" = None

    def __str__(self) -> str:
        words = f"{self.type}: {self.reason or ''}"
        return words if self.caused_by is None else f"{words} ({self.caused_by})"


class _Said(msgspec.Struct):
    """What an answer that is no result may hold."""

    error: _Error | str | None = None
    status: int | None = None
    found: bool | None = None


_told = converter(_Said)


def _status(said: object, accept: Collection[int]) -> int:
    """Return the status of an answer; the driver gives those that it ignores as if they were any other."""
    if not accept:
        return _OK
    told = _told(said)
    if told.error is not None and told.status is not None:
        return told.status
    return _NOT_FOUND if told.found is False else _OK


def _reason(said: object) -> str:
    """Return the server's words of what went wrong."""
    try:
        told = _told(said)
    except msgspec.ValidationError:
        return ""
    return "" if told.error is None else str(told.error)
