"""Sections as NDJSON: what is written is read again, and what is wrong is named."""

import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.errors import InvalidInput
from mooring.model.grants import Grants, SigningKey, TokenGrant
from mooring.routes.ports import Revision, SectionChange
from mooring.routes.wire import Line, Ping, Synced, decode, decode_route, encode, route_document
from support.routes import changes, serving, stopped

revisions = st.builds(Revision, st.sampled_from(("e", "f00")), st.integers(0, 2**53))
lines = st.one_of(
    changes,
    st.builds(SectionChange, source=st.just("workspaces"), revision=revisions),
    st.builds(Ping, revisions, st.floats(0, 3600)),
    st.just(Synced()),
)


@given(lines)
def test_what_is_encoded_is_decoded_again(line: Line) -> None:
    """Every line survives, and is one line."""
    raw = encode(line)
    assert raw.endswith(b"\n")
    assert raw.count(b"\n") == 1
    assert decode(raw) == line


def test_the_stream_looks_as_the_documentation_says() -> None:
    """Names and shapes of `docs/architecture.md`."""
    grants = Grants(
        keys=(SigningKey("k1", bytes(range(32)), 99),),
        tokens=(TokenGrant("ab" * 32, "maria", "s1", 7),),
        revoked=(("s2", 12),),
    )
    change = SectionChange(
        "workspaces", (stopped("a"),), ("b",), complete=True, grants=grants, rank=10, revision=Revision("epoch", 41)
    )
    assert orjson.loads(encode(change)) == {
        "type": "change",
        "revision": ["epoch", 41],
        "source": "workspaces",
        "rank": 10,
        "complete": True,
        "upserts": [{"name": "a", "host": "a.localhost", "state": "stopped"}],
        "deletes": ["b"],
        "grants": {
            "keys": [{"id": "k1", "secret": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", "not_after": 99}],
            "tokens": [{"sha256": "ab" * 32, "subject": "maria", "session": "s1", "expires": 7}],
            "revoked": {"s2": 12},
        },
    }
    ping = orjson.loads(encode(Ping(Revision("epoch", 41), 60)))
    assert ping == {"type": "ping", "revision": ["epoch", 41], "grants_for_s": 60}
    assert orjson.loads(encode(Synced())) == {"type": "synced"}


def test_a_route_is_written_without_defaults_and_read_back() -> None:
    """Defaults cost nothing on the wire."""
    route = serving("a")
    document = route_document(route)
    assert document == {"name": "a", "host": "a.localhost", "backends": [{"address": "127.0.0.1:4000"}]}
    assert decode_route(orjson.dumps(document)) == route


CHANGE = {"type": "change", "source": "s"}


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "type"),
        ({"type": "other"}, "type"),
        (CHANGE | {"source": ""}, "source"),
        (CHANGE | {"source": "a b"}, "source"),
        (CHANGE | {"rank": "1"}, "rank"),
        (CHANGE | {"rank": 1.5}, "rank"),
        (CHANGE | {"complete": 1}, "complete"),
        (CHANGE | {"more": 1}, "more"),
        (CHANGE | {"deletes": [1]}, "deletes.0"),
        (CHANGE | {"revision": ["e"]}, "revision.1"),
        (CHANGE | {"revision": ["e", -1]}, "revision.1"),
        (CHANGE | {"upserts": [{"name": "a"}]}, "upserts.0"),
        (CHANGE | {"upserts": [{"name": "a", "state": "stopped", "order": "1"}]}, "upserts.0.order"),
        (CHANGE | {"upserts": [{"name": "a", "backends": [{"address": "x"}]}]}, "upserts.0.backends.0.address"),
        (CHANGE | {"upserts": [{"name": "a", "state": "stopped", "host": "A"}]}, "upserts.0.host"),
        (CHANGE | {"grants": {"keys": [{"id": "k", "secret": "AAAA", "not_after": 1}]}}, "grants.keys.0.secret"),
        (CHANGE | {"grants": {"keys": [{"id": "k", "secret": "!", "not_after": 1}]}}, "grants.keys.0.secret"),
        (CHANGE | {"grants": {"tokens": [{"sha256": "x", "subject": "a", "session": "s"}]}}, "grants.tokens.0.sha256"),
        (CHANGE | {"grants": {"revoked": {"s": "soon"}}}, "grants.revoked.s"),
        ({"type": "ping", "revision": ["e", 1]}, "grants_for_s"),
        ({"type": "ping", "revision": ["e", 1], "grants_for_s": -1}, "grants_for_s"),
        ({"type": "synced", "extra": True}, "extra"),
    ],
)
def test_a_wrong_document_names_its_field(document: dict[str, object], field: str) -> None:
    """The dotted path of what is wrong, and no coercion of what is nearly right."""
    with pytest.raises(InvalidInput) as caught:
        decode(orjson.dumps(document))
    assert caught.value.field == field


@given(st.binary(max_size=40))
def test_any_bytes_are_a_line_or_an_error_of_ours(raw: bytes) -> None:
    """Nothing else is ever raised."""
    with contextlib.suppress(InvalidInput):
        decode(raw)


def test_an_error_does_not_repeat_a_secret() -> None:
    """What was sent stays out of logs."""
    secret = "c2VjcmV0LXZhbHVl"
    document = CHANGE | {"grants": {"keys": [{"id": "k", "secret": secret, "not_after": 1}]}}
    with pytest.raises(InvalidInput) as caught:
        decode(orjson.dumps(document))
    assert secret not in caught.value.detail
