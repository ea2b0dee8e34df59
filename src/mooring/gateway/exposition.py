"""nginx's counters as text for Prometheus (exposition format 0.0.4). Pure."""

from collections.abc import Iterator
from typing import Any

# Places of an entry as metrics.lua writes it.
_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
_BYTES_OUT, _BYTES_IN, _SECONDS, _FIRST_BUCKET = 5, 6, 7, 8
_BOUNDS = ("0.005", "0.025", "0.1", "0.5", "2.5", "10", "+Inf")
_KINDS = {
    "mooring_route_requests_total": "counter",
    "mooring_route_sent_bytes_total": "counter",
    "mooring_route_received_bytes_total": "counter",
    "mooring_route_duration_seconds": "histogram",
    "mooring_route_websockets": "gauge",
    "mooring_gateway_refused_total": "counter",
}


def exposition(telemetry: dict[str, Any]) -> str:
    """The text for what telemetry.lua answered."""
    samples: dict[str, list[str]] = {family: [] for family in _KINDS}
    for route, counts in sorted(_summed(telemetry["routes"]).items()):
        _route(samples, f'route="{_escaped(route)}"', counts)
    for route, count in sorted(_open(telemetry["open"]).items()):
        samples["mooring_route_websockets"].append(f'mooring_route_websockets{{route="{_escaped(route)}"}} {count}')
    for reason, count in sorted(dict(telemetry["refused"]).items()):
        samples["mooring_gateway_refused_total"].append(f'mooring_gateway_refused_total{{reason="{reason}"}} {count}')
    return "".join(_families(samples))


def _families(samples: dict[str, list[str]]) -> Iterator[str]:
    for family, lines in samples.items():
        if lines:
            yield f"# TYPE {family} {_KINDS[family]}\n"
            yield from (f"{line}\n" for line in lines)


def _summed(entries: list[list[Any]]) -> dict[str, list[float]]:
    totals: dict[str, list[float]] = {}
    for route, counts in entries:
        before = totals.get(route)
        totals[route] = [a + b for a, b in zip(before, counts, strict=True)] if before else list(counts)
    return totals


def _open(workers: list[dict[str, Any]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for worker in workers:
        for route, count in dict(worker["routes"]).items():
            totals[route] = totals.get(route, 0) + count
    return totals


def _route(samples: dict[str, list[str]], label: str, counts: list[float]) -> None:
    for place, name in enumerate(_CLASSES):
        if counts[place]:
            line = f'mooring_route_requests_total{{{label},code="{name}"}} {counts[place]:.0f}'
            samples["mooring_route_requests_total"].append(line)
    for family, place in (("sent", _BYTES_OUT), ("received", _BYTES_IN)):
        name = f"mooring_route_{family}_bytes_total"
        samples[name].append(f"{name}{{{label}}} {counts[place]:.0f}")
    seen = 0.0
    lines = samples["mooring_route_duration_seconds"]
    for bound, count in zip(_BOUNDS, counts[_FIRST_BUCKET:], strict=True):
        seen += count
        lines.append(f'mooring_route_duration_seconds_bucket{{{label},le="{bound}"}} {seen:.0f}')
    lines.append(f"mooring_route_duration_seconds_sum{{{label}}} {counts[_SECONDS]:.3f}")
    lines.append(f"mooring_route_duration_seconds_count{{{label}}} {seen:.0f}")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
