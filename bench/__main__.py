"""Run the benchmarks, print one table, keep it below bench/results/ with the machine and the versions.

Each module of this folder with an `async def run()` is a benchmark. It returns rows: dictionaries with `name`,
`value`, `unit`, `limit` (the figure promised, None for a figure that is only printed) and `note`. One that is told to
end (Ctrl-C, SIGTERM, a terminal that closes) ends what it has started, and is recorded nowhere.
"""

import asyncio
import datetime as dt
import importlib
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mooring.settings import cache

_FOLDER = Path(__file__).parent
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ORDER = (
    "start",
    "create",
    "click",
    "gateway_cpu",
    "gateway_instructions",
    "gateway_ways",
    "peers",
    "publish",
    "memory",
    "websockets",
    "goproxy",
    "goproxy_hits",
    "goproxy_graph",
    "idle",
)
_VERSIONS = (
    ("nginx", ["nginx", "-v"]),
    ("code-server", [str(cache() / "editor/bin/code-server"), "--version"]),
    ("Chromium", ["chromium", "--version"]),
)


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    model = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")), ": ?")
    found = {
        "cores": str(os.cpu_count()),
        "processor": model.partition(": ")[2],
        "memory": Path("/proc/meminfo").read_text().split("\n", 1)[0].split(":")[1].strip(),
        "kernel": platform.release(),
        "Python": platform.python_version(),
    }
    for name, command in _VERSIONS:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        except OSError:
            continue
        found[name] = (done.stdout + done.stderr).strip().splitlines()[0]
    return found


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows as people read them; a figure beside its bound says whether it holds."""
    result = Table(title="Mooring's figures")
    for heading in ("figure", "value", "bound", ""):
        result.add_column(heading, justify="right" if heading in ("value", "bound") else "left")
    for row in rows:
        limit = row.get("limit")
        verdict = "" if limit is None else ("holds" if row["value"] <= limit else "MISSED")
        bound = "" if limit is None else f"{limit:g} {row['unit']}"
        result.add_row(
            row["name"], f"{row['value']:.4g} {row['unit']}", bound, " ".join((verdict, row.get("note", "")))
        )
    return result


async def measured(name: str) -> list[dict[str, Any]]:
    """The rows of one benchmark.

    Raises:
        asyncio.CancelledError: a signal ended it, and what it had started has ended.
    """
    task = asyncio.current_task()
    assert task

    def end() -> None:
        # `timeout` and impatient people say it twice; a second time it would interrupt the ending.
        if not task.cancelling():
            task.cancel()

    for number in _ENDINGS:
        # `nohup` and a shell's `&` have some ignored, which is to stay so.
        if signal.getsignal(number) is signal.SIG_IGN:
            continue
        asyncio.get_running_loop().add_signal_handler(number, end)
    rows: list[dict[str, Any]] = await importlib.import_module(f"bench.{name}").run()
    return rows


def main(names: list[str]) -> int:
    """Run the named benchmarks, all when none is named; 1 when a bound is missed, 130 when a signal ended it."""
    chosen = names or [name for name in _ORDER if (_FOLDER / f"{name}.py").exists()]
    rows: list[dict[str, Any]] = []
    for name in chosen:
        print(f"bench: {name}", file=sys.stderr, flush=True)
        try:
            rows += asyncio.run(measured(name))
        except asyncio.CancelledError:
            print("bench: ended by a signal", file=sys.stderr)
            return 130
    about = machine()
    Console(width=120).print(table(rows))
    for key, value in about.items():
        print(f"{key}: {value}")
    results = _FOLDER / "results"
    results.mkdir(exist_ok=True)
    stamp = dt.datetime.now(tz=dt.UTC).strftime("%Y-%m-%d")
    part = "" if not names else "-" + "-".join(names)
    document = {"machine": about, "date": stamp, "rows": rows}
    (results / f"{stamp}{part}.json").write_text(json.dumps(document, indent=2) + "\n")
    missed = [row["name"] for row in rows if row.get("limit") is not None and row["value"] > row["limit"]]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
