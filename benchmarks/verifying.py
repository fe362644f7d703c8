"""How long does it take to prove that a lake is right, and how much memory? `tidelog verify`, on a table and its lake.

The worker takes the table into an empty lake; then a hundredth of the rows are updated, a thousandth deleted, and it
runs again, so that the lake has old versions, and keys that are gone. A process of its own verifies that, with the code
of the command. Nothing differs, and that has to be what it says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.results import Bar, Grid, Section, circumstances, parser
from benchmarks.setting import ROOT, Store, on_lambda, report, set_up
from benchmarks.tables import fill
from benchmarks.worker import peak_memory

from tidelog.credentials import Credentials
from tidelog.stores import Bucket
from tidelog.tables import TableName
from tidelog.verification.verdict import Verified
from tidelog.verification.verifying import Verifying
from tidelog_sandbox.postgres import USER

MEGABYTES = 300
TABLE = "public.orders"
_VERIFY = "TIDELOG_BENCH_VERIFY"


def main() -> None:
    """Measure and print; or be the process that verifies."""
    if wanted := os.environ.get(_VERIFY):
        verify(**json.loads(wanted))
        return
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, default=10_000_000)
    given = arguments.parse_args()
    load = os.getloadavg()[0]
    with set_up() as setting:
        server = setting.server
        fill(server, "orders", given.rows)
        setting.make_lake("lake")
        environment = setting.environment("lake")
        report("taking it into the lake …")
        ingest(environment)
        server.run("UPDATE orders SET units_sold = units_sold + 1 WHERE order_id % 100 = 7")
        server.run("DELETE FROM orders WHERE order_id % 1000 = 3")
        ingest(environment)
        where = {"endpoint": setting.store.endpoint, "port": server.port, "password": server.password}
        took = measured(environment, where)
        section = result(given.rows, circumstances(load, setting.versions()), took)
    section.print()
    section.write(given.results)


def ingest(environment: dict[str, str]) -> None:
    """Have a worker process run the table."""
    command = on_lambda("worker")
    subprocess.run(command, cwd=ROOT, env=environment, input=f"{TABLE}\n", text=True, check=True, stdout=sys.stderr)


def measured(environment: dict[str, str], where: dict[str, Any]) -> dict[str, Any]:
    """Have a process verify the lake; return what it took."""
    report("verifying …")
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.verifying"],
        cwd=ROOT,
        env=environment | {_VERIFY: json.dumps(where)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    took: dict[str, Any] = json.loads(process.stdout)
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


def result(rows: int, where: str, took: dict[str, Any]) -> Section:
    """Say what it took."""
    headings = ("lines in the lake", "rows compared", "keys gone", "seconds", "rows/s", "peak MB")
    counts = (f"{took[name]:,}" for name in ("lines", "rows", "gone"))
    speed = (f"{took['seconds']:.1f}", f"{took['rows'] / took['seconds']:,.0f}", f"{took['peak']:.0f}")
    begun = ", ".join(f"{what} from {seconds:.1f} s on" for what, seconds in took["since"].items())
    return Section(
        "verifying",
        "A lake is proved to be right",
        where,
        [
            Grid(
                headings,
                [(*counts, *speed)],
                f"{rows:,} rows of 14 columns, a hundredth updated, a thousandth deleted:",
            )
        ],
        [Bar("MB of memory of the process that verifies", took["peak"], MEGABYTES, least=False)],
        [f"Of which {begun}."],
    )


if __name__ == "__main__":
    main()
