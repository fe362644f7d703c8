"""How long does it take to prove that a lake is right, and how much memory? `tidelog verify`, on a table and its lake.

The worker takes the table into an empty lake; then a hundredth of the rows are updated, a thousandth deleted, and it
runs again, so that the lake has old versions, and keys that are gone. A process of its own verifies that, with the code
of the command. Nothing differs, and that has to be what it says.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.setting import (
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
from benchmarks.worker import peak_memory

from tidelog.credentials import Credentials
from tidelog.stores import Bucket
from tidelog.tables import TableName
from tidelog.verification.verdict import Verified
from tidelog.verification.verifying import Verifying
from tidelog_sandbox.cloud import Cloud
from tidelog_sandbox.postgres import USER, Postgres

MEGABYTES = 300
TABLE = "public.orders"
_VERIFY = "TIDELOG_BENCH_VERIFY"


def main() -> None:
    """Measure and print; or be the process that verifies."""
    if wanted := os.environ.get(_VERIFY):
        verify(**json.loads(wanted))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    rows = parser.parse_args().rows
    load = os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory(prefix="tidelog-bench-") as scratch,
        Cloud() as cloud,
        start_store(Path(scratch), cloud) as store,
        Postgres(settings=SETTINGS) as server,
    ):
        fill(server, "orders", rows, step=31, indexed=())
        keep_secret(cloud, server)
        store.make_bucket("lake")
        environment = worker_environment(cloud, store, "lake")
        report("taking it into the lake …")
        ingest(environment)
        server.run("UPDATE orders SET units_sold = units_sold + 1 WHERE order_id % 100 = 7")
        server.run("DELETE FROM orders WHERE order_id % 1000 = 3")
        ingest(environment)
        took = measured(environment, {"endpoint": store.endpoint, "port": server.port, "password": server.password})
    print_table(rows, f"{store.name}; load before it {load:.1f}", took)


def ingest(environment: dict[str, str]) -> None:
    """Have a worker process run the table."""
    command = [sys.executable, "-m", "benchmarks.worker"]
    subprocess.run(command, cwd=ROOT, env=environment, input=f"{TABLE}\n", text=True, check=True, stdout=sys.stderr)


def measured(environment: dict[str, str], where: dict[str, Any]) -> dict[str, float]:
    """Have a process verify the lake; return what it took."""
    report("verifying …")
    started = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.verifying"],
        cwd=ROOT,
        env=environment | {_VERIFY: json.dumps(where)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    took: dict[str, float] = json.loads(process.stdout) | {"whole": time.perf_counter() - started}
    return took


def verify(endpoint: str, port: int, password: str) -> None:
    """Verify the table, and print what it took."""
    client = Store("", endpoint).client
    credentials = Credentials("127.0.0.1", USER, password, "postgres", port)
    since: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="tidelog-bench-") as work:
        started = time.perf_counter()
        found: Verified = Verifying(
            Bucket(client, "lake"),
            lambda: credentials,
            "disable",
            work=Path(work),
            tell=lambda what, *_: since.setdefault(what, time.perf_counter() - started),
        ).verify(TableName.parse(TABLE))
        seconds = time.perf_counter() - started
    if not found.is_right:
        sys.exit(f"{found.verdict}: {found}")
    told = {"rows": found.rows, "lines": found.lines, "gone": found.gone, "seconds": seconds, "peak": peak_memory()}
    print(json.dumps(told | {"since": since}))


def print_table(rows: int, circumstances: str, took: dict[str, Any]) -> None:
    """Print what it took, and what it was measured on."""
    print(f"{rows:,} rows of 14 columns, on {machine()}; {circumstances}.\n")
    print("| lines in the lake | rows compared | keys gone | seconds | rows/s | peak RSS MB |")
    print("|---:|---:|---:|---:|---:|---:|")
    print(
        f"| {took['lines']:,} | {took['rows']:,} | {took['gone']:,} | {took['seconds']:.1f} "
        f"| {took['rows'] / took['seconds']:,.0f} | {took['peak']:.0f} |"
    )
    begun = ", ".join(f"{what} from {seconds:.1f} s on" for what, seconds in took["since"].items())
    print(f"\nOf which {begun}. The bar of {MEGABYTES} MB is {'kept' if took['peak'] < MEGABYTES else 'MISSED'}.")


if __name__ == "__main__":
    main()
