"""A cluster behind TLS and a password: who may not is told so, and is told no secrets."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

import turnlog
from tests.adapters.commands import Cli
from tests.adapters.opensearch_indices import Indices
from tests.servers.secured import Secured


@pytest.fixture
def secured(indices: Indices, tmp_path: Path) -> Iterator[Secured]:
    """The node behind both."""
    with Secured(indices.server.port, tmp_path) as proxy:
        yield proxy


def url(secured: Secured, *, word: str = Secured.password, host: str = "localhost") -> str:
    """Return the URL that leads through it."""
    return f"opensearch+https://{Secured.user}:{quote(word, safe='')}@{host}:{secured.port}"


def test_it_is_followed(filled: turnlog.ConversationStore, indices: Indices, secured: Secured) -> None:
    """With the authority's certificate and the password everything works as without."""
    with turnlog.follow(filled, url(secured), prefix=indices.prefix, ca_certs=str(secured.ca)) as followed:
        followed.catch_up()
        indices.assert_same(filled, followed)
        assert len(followed.search("tables | table").items) == 1
    with turnlog.follow(filled, url(secured), prefix=indices.prefix, verify=False) as unchecked:
        assert unchecked.counts() == (2, 4)


def test_who_is_refused(filled: turnlog.ConversationStore, indices: Indices, secured: Secured) -> None:
    """An unknown authority, another host's certificate, a wrong password, no TLS: each is said, without a secret."""
    trusted = {"ca_certs": str(secured.ca), "prefix": indices.prefix}
    refused: list[tuple[str, dict[str, str], str]] = [
        (url(secured), {}, r"certificate is refused \(.*ca_certs"),
        (url(secured, host="127.0.0.1"), trusted, r"certificate is refused \(.*127\.0\.0\.1"),
        (url(secured, word="wrong word"), trusted, r"\(401\)"),
        (url(secured).replace("+https", ""), {}, "cannot be reached"),
    ]
    for address, options, words in refused:
        with pytest.raises(turnlog.StoreUnavailable, match=words) as raised:
            turnlog.follow(filled, address, **options)
        error: BaseException | None = raised.value
        while error is not None:
            assert "pass w" not in f"{error!s}{error!r}"
            assert "wrong word" not in f"{error!s}{error!r}"
            error = error.__cause__ or error.__context__


def test_from_the_shell(
    cli: Cli,
    filled: turnlog.ConversationStore,
    indices: Indices,
    secured: Secured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`turnlog project` and `doctor` trust the authority that SSL_CERT_FILE names."""
    to = ("--to", url(secured), "--prefix", indices.prefix)
    assert "certificate is refused" in cli("project", *to, "--once", code=1).err
    monkeypatch.setenv("SSL_CERT_FILE", str(secured.ca))
    assert cli("project", *to, "--once", "--json").lines[-1]["position"] == filled.position
    findings = {one["name"]: one for one in cli("doctor", *to, "--json").json["findings"]}
    assert (findings["encryption"]["level"], findings["encryption"]["found"]) == ("ok", "TLS")
