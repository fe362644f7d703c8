"""Does an increment cost what changed, or what the table holds? The same change to a large and to a small table.

Both are in one PostgreSQL of this machine and are read through their indexed timestamp columns. After a first snapshot
of each, rounds: a thousand random rows of one table are updated and then ingested, and the same with the other table,
each round in the other order. The worker's own parts run, warm, in this process; they write to a real S3 server
(SeaweedFS) and keep their state in the sandbox's Parameter Store. The first round is not counted.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.setting import SETTINGS, fill, keep_secret, machine, report, start_store, worker_environment

from tidelog.ingesting import Ingestion
from tidelog.pipeline import build_parts
from tidelog.settings import read_worker_settings
from tidelog.tables import TableName
from tidelog_sandbox.cloud import Cloud
from tidelog_sandbox.postgres import Postgres

BAR = 1.5
CHANGED = 1000
TIMESTAMPS = ("created_at", "last_updated")
FILL_FACTOR = 90
"""An updated row stays on its page, so that in both tables what has changed lies scattered."""
LAKE = "lake"
LOOK_BACK_SECONDS = 60
SPREAD_SECONDS = 3 * 365 * 24 * 3600
"""Within which the rows of a table were created, from 2023 on."""
_SNAPSHOT_SECONDS = 3600
_INCREMENT_SECONDS = 600


@dataclass(slots=True)
class Subject:
    """A table that is measured."""

    name: str
    rows: int
    snapshot: float = 0
    """Seconds of its first snapshot."""
    increments: list[float] = field(default_factory=list)
    """Seconds of each increment."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--small", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    large, small = Subject("large", arguments.rows), Subject("small", arguments.small)
    with (
        tempfile.TemporaryDirectory(prefix="tidelog-bench-") as scratch,
        Cloud() as cloud,
        start_store(Path(scratch), cloud) as store,
        Postgres(settings=SETTINGS) as server,
    ):
        keep_secret(cloud, server)
        store.make_bucket(LAKE)
        limits = {"LOOK_BACK_SECONDS": str(LOOK_BACK_SECONDS), "TIME_BOUND_MEGABYTES": "1"}
        os.environ.update(worker_environment(cloud, store, LAKE, **limits))
        ingestion = Ingestion(build_parts(read_worker_settings(os.environ)))
        for table in (large, small):
            step = SPREAD_SECONDS / table.rows
            fill(server, table.name, table.rows, step=step, indexed=TIMESTAMPS, fillfactor=FILL_FACTOR)
            report(f"first snapshot of {table.rows:,} rows …")
            table.snapshot = snapshot(ingestion, table)
        server.run("CHECKPOINT")
        chance = random.Random(1)  # noqa: S311  # the same rows each time
        for run in range(arguments.runs + 1):
            report(f"run {run} of {arguments.runs} …" if run else "warming up …")
            for table in (large, small) if run % 2 else (small, large):
                change(server, table, chance)
                seconds = increment(ingestion, table)
                if run:
                    table.increments.append(seconds)
        print_table(f"{store.name}; load before it {load:.1f}", large, small)


def snapshot(ingestion: Ingestion, table: Subject) -> float:
    """Take the first snapshot of a table; return its seconds."""
    started = time.perf_counter()
    run = ingestion.ingest(TableName("public", table.name), seconds=_SNAPSHOT_SECONDS)
    seconds = time.perf_counter() - started
    if run.rows != table.rows:
        sys.exit(f"the first snapshot of {table.name} has {run.rows} rows of {table.rows}")
    return seconds


def change(server: Postgres, table: Subject, chance: random.Random) -> None:
    """Update some rows of a table."""
    keys = ",".join(str(key) for key in chance.sample(range(1, table.rows + 1), CHANGED))
    server.run(
        f"UPDATE {table.name} SET last_updated = clock_timestamp() WHERE order_id = ANY ('{{{keys}}}'::bigint[])"
    )


def increment(ingestion: Ingestion, table: Subject) -> float:
    """Ingest what has changed in a table; return the seconds that it took."""
    started = time.perf_counter()
    run = ingestion.ingest(TableName("public", table.name), seconds=_INCREMENT_SECONDS)
    seconds = time.perf_counter() - started
    if run.rows != CHANGED or not run.strategy.startswith("timestamp:"):
        sys.exit(f"an increment of {table.name} has {run.rows} rows of {CHANGED}, found by {run.strategy}")
    return seconds


def print_table(circumstances: str, large: Subject, small: Subject) -> None:
    """Print the medians, and what they were measured on."""
    runs = len(large.increments)
    print(
        f"{CHANGED:,} changed rows of 14 columns, medians of {runs} runs in turns, on {machine()}; {circumstances}.\n"
    )
    print("| rows of the table | first snapshot, seconds | increment, seconds | fastest | slowest | ratio |")
    print("|---:|---:|---:|---:|---:|---:|")
    base = statistics.median(small.increments)
    for table in (small, large):
        seconds, fastest, slowest = statistics.median(table.increments), min(table.increments), max(table.increments)
        timings = f"{table.snapshot:.1f} | {seconds:.3f} | {fastest:.3f} | {slowest:.3f} | {seconds / base:.2f}"
        print(f"| {table.rows:,} | {timings} |")
    pairs = sorted(one / other for one, other in zip(large.increments, small.increments, strict=True))
    reached = statistics.median(large.increments) / base <= BAR
    print(
        f"\nThe bar of {BAR} is {'reached' if reached else 'MISSED'}; pair by pair {pairs[0]:.2f} to {pairs[-1]:.2f}."
    )
    print(f"Each increment was looked at: it is of {CHANGED:,} rows, found through the timestamps' indexes.")


if __name__ == "__main__":
    main()
