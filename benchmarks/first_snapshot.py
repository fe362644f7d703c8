"""How fast is a first snapshot? tidelog's worker against `psql -c "COPY …" | gzip -1`, on the same server.

Both read the same table from a PostgreSQL of this machine, in turns. The worker runs its own code from the first line
to the last: it writes to a real S3 server (SeaweedFS, installed to .tidelog/bench the first time) and keeps its state
in the sandbox's Parameter Store. Its time is given twice: from the moment that it is told to run until it is done, as
of a function that Lambda has started before; and from the start of its process to its end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.setting import (
    MEGABYTE,
    ROOT,
    SETTINGS,
    Store,
    fill,
    keep_secret,
    machine,
    report,
    start_store,
    worker_environment,
)

from tidelog_sandbox.cloud import Cloud
from tidelog_sandbox.postgres import Postgres

BAR = 0.9

COPY = "COPY (SELECT row_to_json(r) FROM (SELECT * FROM orders) r) TO STDOUT"


@dataclass(frozen=True, slots=True)
class Took:
    """What one run took."""

    seconds: float
    """From the command to run to its end."""
    whole: float
    """From the start of the first process to the end of the last."""
    cpu: float
    """Processor seconds of the client's processes, all of them."""
    peak: float = 0
    """MB of memory of the worker's process at its peak."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory(prefix="tidelog-bench-") as scratch,
        Cloud() as cloud,
        start_store(Path(scratch), cloud) as store,
        Postgres(settings=SETTINGS) as server,
    ):
        fill(server, "orders", arguments.rows, step=31, indexed=("last_updated",))
        keep_secret(cloud, server)
        peers: list[Took] = []
        workers: list[Took] = []
        for run in range(1, arguments.runs + 1):
            report(f"run {run} of {arguments.runs} …")
            file = Path(scratch) / "orders.jsonl.gz"
            peers.append(run_psql(server, file))
            store.make_bucket(f"lake-{run}")
            workers.append(run_worker(cloud, store, f"lake-{run}", arguments.rows))
        check(file, store, f"lake-{run}")
        print_table(arguments.rows, f"{store.name}; load before it {load:.1f}", peers, workers)


def run_psql(server: Postgres, file: Path) -> Took:
    """Copy the table with psql and gzip."""
    pipeline = '"$1" -X "$2" -c "$3" | gzip -1 > "$4"'
    arguments = [str(server.binaries / "psql"), server.url(), COPY, str(file)]
    started = time.perf_counter()
    process = subprocess.Popen(["/bin/sh", "-c", pipeline, "sh", *arguments])
    cpu = ended(process)
    seconds = time.perf_counter() - started
    return Took(seconds, seconds, cpu)


def run_worker(cloud: Cloud, store: Store, bucket: str, rows: int) -> Took:
    """Have a worker process take the first snapshot of the table into an empty lake."""
    environment = worker_environment(cloud, store, bucket)
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.worker"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin  # noqa: S101  # for the type: both are pipes
    assert process.stdout  # noqa: S101
    with process.stdin as commands, process.stdout as answers:
        answers.readline()
        told = time.perf_counter()
        commands.write("public.orders\n")
        commands.flush()
        said = json.loads(answers.readline() or "{}")
        seconds = time.perf_counter() - told
        commands.close()  # nothing else is to be run: it ends
        cpu = ended(process)
    if said["rows"] != rows:
        sys.exit(f"the worker wrote {said['rows']} rows of {rows}")
    return Took(seconds, time.perf_counter() - started, cpu, said["peak"])


def ended(process: subprocess.Popen[Any]) -> float:
    """Wait for a process; return the processor seconds of it and its children."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{process.args!r} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def check(file: Path, store: Store, bucket: str) -> None:
    """Compare the lines of the last two runs, byte for byte."""
    (segment,) = store.client.list_objects_v2(Bucket=bucket, Prefix="data/")["Contents"]
    body = store.client.get_object(Bucket=bucket, Key=segment["Key"])["Body"]
    with file.open("rb") as peer:
        same = digest(iter(lambda: peer.read(MEGABYTE), b"")) == digest(body.iter_chunks(MEGABYTE))
    if not same:
        sys.exit("the worker's lines are not psql's")


def digest(chunks: Iterable[bytes]) -> str:
    """Return a checksum of what is compressed in some chunks."""
    inflate, checksum = zlib.decompressobj(31), hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        checksum.update(inflate.decompress(chunk))
    return checksum.hexdigest()


def print_table(rows: int, circumstances: str, peers: list[Took], workers: list[Took]) -> None:
    """Print the medians, and what they were measured on."""
    peer = statistics.median(took.seconds for took in peers)
    print(f"{rows:,} rows of 14 columns, medians of {len(peers)} runs in turns, on {machine()}; {circumstances}.\n")
    print("| | rows/s | seconds | client CPU s | peak RSS MB | ratio |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, runs, what in (
        ('psql -c "COPY …" \\| gzip -1', peers, "seconds"),
        ("tidelog worker", workers, "seconds"),
        ("tidelog worker, with the start of its process", workers, "whole"),
    ):
        seconds, cpu = (statistics.median(getattr(took, field) for took in runs) for field in (what, "cpu"))
        peak = max(took.peak for took in runs)
        memory = f"{peak:.0f}" if peak else ""
        print(f"| {name} | {rows / seconds:,.0f} | {seconds:.2f} | {cpu:.2f} | {memory} | {peer / seconds:.2f} |")
    pairs = sorted(peer.seconds / worker.seconds for peer, worker in zip(peers, workers, strict=True))
    reached = peer / statistics.median(took.seconds for took in workers) >= BAR
    print(
        f"\nThe bar of {BAR} is {'reached' if reached else 'MISSED'}; pair by pair {pairs[0]:.2f} to {pairs[-1]:.2f}."
    )
    print("The lines of both were compared: they are the same, byte for byte.")


if __name__ == "__main__":
    main()
