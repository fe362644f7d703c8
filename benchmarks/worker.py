"""A worker: a process of its own that loads what its function does, and no more, and runs tables when told to."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from pathlib import Path

from tidelog.ingesting import Ingestion
from tidelog.pipeline import build_parts
from tidelog.settings import read_worker_settings
from tidelog.tables import TableName

_FUNCTION = Path(__file__).parents[1] / "functions" / "worker"


def main() -> None:
    """Get ready, and run the tables whose names come in, one by one."""
    sys.path.insert(0, str(_FUNCTION))
    importlib.import_module("app")  # the function, with all that it loads: that is what a cold start does
    ingestion = Ingestion(build_parts(read_worker_settings(os.environ)))
    print("ready", flush=True)
    for line in sys.stdin:
        run = ingestion.ingest(TableName.parse(line.strip()), seconds=890)
        said = {"rows": run.rows, "key": run.key, "bytes": run.bytes, "strategy": run.strategy, "peak": peak_memory()}
        print(json.dumps(said), flush=True)


def peak_memory() -> float:
    """Return the most MB that this process has held, not counting what its parent held when it began."""
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(found[1]) * 1024 / 10**6 if found else 0
    import resource  # noqa: PLC0415  # not on Linux

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 10**6


if __name__ == "__main__":
    main()
