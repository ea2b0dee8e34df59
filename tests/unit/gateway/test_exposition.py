"""What Prometheus is told of nginx's counters."""

from mooring.gateway.exposition import exposition

PLACES = 15
MANY = 123_456_789


def test_no_counter_is_rounded() -> None:
    """A counter in six digits would stand still for a thousand requests, and a rate would be nothing, then a peak."""
    counts = [float(MANY)] * PLACES
    text = exposition({"routes": [["a", counts], ["a", counts]], "open": [], "refused": {"origin": MANY}})
    assert f'mooring_route_requests_total{{route="a",code="2xx"}} {2 * MANY}\n' in text
    assert f'mooring_route_sent_bytes_total{{route="a"}} {2 * MANY}\n' in text
    assert f'mooring_gateway_refused_total{{reason="origin"}} {MANY}\n' in text
