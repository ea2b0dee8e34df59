"""What the fields of the Redis hash mean, as a pure function."""

from hypothesis import given
from hypothesis import strategies as st

from mooring.discovery.hosts import resolve, route
from mooring.settings import RedisSource

SETTINGS = RedisSource(paths_host="ws.localhost")

fields = st.one_of(st.sampled_from([b"a", b"b", b"c", b"a/b", b"..", b"x-1"]), st.binary(max_size=12))
addresses = st.sampled_from([b"127.0.0.1:80", b"10.0.0.1:65535", b"[::1]:1", b"1.2.3.4:0", b"1.2.3.4:99999"])
pointers = st.sampled_from(
    [b'{"sid":"a","host":"x"}', b'{"sid":"b","host":""}', b'{"sid":1}', b"{", b"[]", b'{"sid":"c"}']
)


@given(st.dictionaries(fields, st.one_of(addresses, pointers, st.binary(max_size=20)), max_size=12))
def test_every_field_is_served_or_reported(content: dict[bytes, bytes]) -> None:
    """No content raises; each field is in exactly one of the two lists, and a served one makes a valid route."""
    hosts = resolve(content)
    assert not hosts.addresses.keys() & hosts.ignored.keys()
    assert len({f.decode(errors="backslashreplace") for f in content}) == len(hosts.addresses) + len(hosts.ignored)
    for field, address in hosts.addresses.items():
        made = route(field, address, SETTINGS)
        assert made.path == f"/ws/{field}"
        assert made.backends[0].address == address


def test_a_pointer_to_a_pointer_is_refused() -> None:
    """One step only, so that no circle can be written."""
    hosts = resolve({b"a": b"1.2.3.4:5", b"b": b'{"sid":"a","host":"h"}', b"c": b'{"sid":"b","host":"h"}'})
    assert hosts.addresses == {"a": "1.2.3.4:5", "b": "1.2.3.4:5"}
    assert "no field with an ip:port" in hosts.ignored["c"]
