"""How much faster is a large read with more workers? A first snapshot in chunks, by one, two and four of them.

For each run the table is planned in chunks anew, which a worker reads first and then takes no part in the time; then so
many workers, each a process of its own that runs already, take the chunks from the queue until there are none.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from benchmarks.processes import Process, processor_seconds
from benchmarks.results import Bar, Grid, Section, circumstances, parser
from benchmarks.setting import Setting, on_lambda, report, set_up
from benchmarks.tables import fill
from benchmarks.worker import CHUNKS

_CORES = 2
"""What one worker keeps busy at most: a session of the server, and itself."""
_TABLE = "orders"
_WORKERS = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Took:
    """What one run took.

    Attributes:
        seconds: until the last worker found no more chunks.
        client: processor seconds of the workers.
        server: processor seconds of the database server.
        chunks: how many were read.
    """

    seconds: float
    client: float
    server: float
    chunks: int


def main() -> None:
    """Measure, print and write."""
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, default=2_000_000)
    arguments.add_argument("--chunk-megabytes", type=int, default=16)
    arguments.add_argument("--runs", type=int, default=3)
    given = arguments.parse_args()
    load = os.getloadavg()[0]
    runs: dict[int, list[Took]] = {workers: [] for workers in _WORKERS}
    with set_up() as setting:
        fill(setting.server, _TABLE, given.rows)
        for number in range(given.runs):
            for workers in _WORKERS:
                report(f"run {number + 1} of {given.runs}, {workers} workers …")
                lake = f"lake-{number}-{workers}"
                setting.make_lake(lake)
                environment = setting.environment(lake, CHUNK_MEGABYTES=str(given.chunk_megabytes))
                runs[workers].append(read(setting, environment, workers, given.rows))
        where = circumstances(load, setting.versions())
    section = result(where, given.rows, runs)
    section.print()
    section.write(given.results)


def read(setting: Setting, environment: Mapping[str, str], workers: int, rows: int) -> Took:
    """Plan the table, and have so many workers read its chunks."""
    command = on_lambda("worker")
    with ExitStack() as stack:
        processes = [
            stack.enter_context(closing(Process(command, environment, setting.scratch / f"worker-{number}.log")))
            for number in range(workers)
        ]
        planned = json.loads(processes[0].ask(f"public.{_TABLE}"))
        server, started = processor_seconds(setting.server), time.perf_counter()
        for each in processes:
            each.tell(CHUNKS)
        said = [json.loads(each.hear()) for each in processes]
        seconds = time.perf_counter() - started
    if sum(each["rows"] for each in said) != rows:
        sys.exit(f"{sum(each['rows'] for each in said)} rows of {rows} were read in {planned['chunks']} chunks")
    client, chunks = (sum(each[what] for each in said) for what in ("cpu", "runs"))
    return Took(seconds, client, processor_seconds(setting.server) - server, chunks)


def result(where: str, rows: int, runs: Mapping[int, Sequence[Took]]) -> Section:
    """Say what it took."""
    medians = {workers: statistics.median(took.seconds for took in each) for workers, each in runs.items()}
    lines = []
    for workers, each in runs.items():
        client, server = (statistics.median(getattr(took, what) for took in each) for what in ("client", "server"))
        seconds = medians[workers]
        speed = (f"{seconds:.2f}", f"{rows / seconds:,.0f}", f"{medians[1] / seconds:.2f}")
        busy = (client + server) / seconds
        lines.append((f"{workers}", *speed, f"{client:.1f}", f"{server:.1f}", f"{busy:.2f}", f"{each[0].chunks}"))
    headings = ("workers", "seconds", "rows/s", "ratio", "client CPU s", "server CPU s", "cores busy", "chunks")
    return Section(
        "chunks",
        "Workers side by side",
        where,
        [Grid(headings, lines, f"{rows:,} rows of 14 columns:")],
        [bar(medians[1] / medians[2])],
        [f"Medians of {len(runs[1])} runs in turns. The processor time of the S3 server is not counted."],
    )


def bar(ratio: float) -> Bar:
    """Say whether two workers are as much faster as wanted, where there are the cores for it."""
    what, cores = "two chunk workers' rows/s over one's", os.cpu_count() or 1
    if cores < 2 * _CORES:
        what += f", here {ratio:.2f} times: two sessions of the server and two workers take {2 * _CORES} cores"
        return Bar(f"{what}, of which there are {cores}", None, 1.6, unit=" times")
    return Bar(what, ratio, 1.6, unit=" times")


if __name__ == "__main__":
    main()
