"""The benchmarks, which no type checker and few tests look at."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_each_benchmark_finds_what_it_needs() -> None:
    """A name of the product that has changed shows here, and not when somebody wants a figure."""
    names = sorted(path.stem for path in (ROOT / "bench").glob("[a-z]*.py"))
    assert "gateway_cpu" in names
    subprocess.run([sys.executable, "-c", ";".join(f"import bench.{name}" for name in names)], cwd=ROOT, check=True)
