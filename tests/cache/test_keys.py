"""What makes two requests the same."""

import json
from typing import Any, cast

import pytest
from hypothesis import given

import turnlog.cache
from tests.cache.conftest import REQUEST
from turnlog import InvalidInput
from turnlog.cache.keys import canonical, path
from turnlog.testing import strategies

objects = strategies.json_objects


def turned(value: Any) -> Any:
    """Return the same JSON with the items of every object in the opposite order."""
    match value:
        case dict():
            return {key: turned(item) for key, item in reversed(cast("dict[str, Any]", value).items())}
        case list():
            return [turned(item) for item in cast("Any", value)]
        case _:
            return value


def exact(value: Any) -> str:
    """Write a value such that two are written alike only if they are the same JSON to the digit."""
    match value:
        case dict():
            pairs = cast("dict[str, Any]", value).items()
            return f"{{{','.join(sorted(f'{key!r}:{exact(item)}' for key, item in pairs))}}}"
        case list():
            return f"[{','.join(map(exact, cast('Any', value)))}]"
        case _:
            return repr(value)


@given(objects)
def test_the_order_of_properties_makes_no_difference(request: dict[str, Any]) -> None:
    """A request has one key, however its dicts were filled."""
    assert turnlog.cache.key(turned(request)) == turnlog.cache.key(request)


@given(objects, objects)
def test_other_requests_have_other_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Two requests have the same key only if they are the same, 1, 1.0 and true being three values."""
    assert (turnlog.cache.key(one) == turnlog.cache.key(other)) == (exact(one) == exact(other))


@given(strategies.json_values)
def test_canonical_json_is_json(value: Any) -> None:
    """It gives the value back, to the digit, and writing that again gives the same bytes."""
    again = json.loads(canonical(value))
    assert exact(again) == exact(value)
    assert canonical(again) == canonical(value)


def test_canonical_json_is_written_so() -> None:
    """To the byte: sorted keys, no blanks, exact numbers, the shortest escapes."""
    value = {"é": 1e22, "b": [1, 1.0, True, None, -0.0, 2**64], "a": 'x"\n\x1f\u2028'}
    assert canonical(value).decode() == (
        '{"a":"x\\"\\n\\u001f\u2028","b":[1,1.0,true,null,-0.0,18446744073709551616],"é":1e+22}'
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "m-2"},
        {"messages": [{"role": "system", "content": "A table for two, please"}]},
        {"temperature": 0.3},
        {"max_tokens": 101},
        {"tools": []},
        {"tools": [{"name": "book", "parameters": {"type": "array"}}]},
        {"seed": 1},
    ],
)
def test_everything_of_a_request_counts(changed: dict[str, Any]) -> None:
    """Model, messages, temperature, limits, tools (which the seeds left out) and any further parameter."""
    assert turnlog.cache.key({**REQUEST, **changed}) != turnlog.cache.key(REQUEST)


def test_the_scope_counts() -> None:
    """Nobody shares a key with another scope, nor with one that reads alike when its names are put together."""
    scopes: list[Any] = [(), "a", ("a", "b"), ("b", "a"), "ab", "a,b", '["a","b"]', ("a", "b", "c")]
    assert len({turnlog.cache.key(REQUEST, scope) for scope in scopes}) == len(scopes)
    assert turnlog.cache.key(REQUEST, "a") == turnlog.cache.key(REQUEST, ["a"])


def test_a_scopes_path_begins_with_that_of_the_wider_one() -> None:
    """And with no other's; names cannot be read in it."""
    assert path(("acme", "alice")).startswith(path(("acme",)))
    assert not path(("acme", "alice")).startswith(path(("alice",)))
    assert "alice" not in path(("acme", "alice"))
    assert path(()) == ""


def test_keys_stay_the_same() -> None:
    """What was stored by an earlier version is found: the way to make keys does not change under its number."""
    assert turnlog.cache.key(REQUEST, ("acme", "alice")) == KEY


@pytest.mark.parametrize(
    ("request_", "scope", "field"),
    [
        ("text", (), "request"),
        ({"a": (1,)}, (), "request.a"),
        ({"a": {1: 2}}, (), "request.a"),
        ({"a": float("nan")}, (), "request.a"),
        ({"a": b"x"}, (), "request.a"),
        ({}, 7, "scope"),
        ({}, [7], "scope[0]"),
        ({}, "", "scope[0]"),
        ({}, list("123456789"), "scope"),
    ],
)
def test_what_is_no_json_and_no_scope_is_refused(request_: Any, scope: Any, field: str) -> None:
    """By name: silently making a key of something else would give another prompt's answer."""
    with pytest.raises(InvalidInput) as raised:
        turnlog.cache.key(request_, scope)
    assert raised.value.field == field


KEY = "4dce3ad0a403ac20a02c5220b5e6b1f4e1e8f54d586179b5f6f1e825be318768"
