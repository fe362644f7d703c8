"""What do tools that ask for `updated_at > the last one seen` lose? dlt and tap-postgres beside tidelog, on one table.

Eight writers write to one table of a PostgreSQL of this machine, in transactions that are short or held open, committed
or rolled back. `updated_at` is `now()`, as most ORMs and triggers have it. All tools poll the table meanwhile, each
with its state kept, and at least twice more when the writers have ended; one that holds rows back, until these are due.
Then what it has written is compared with the table:

  lost      keys of the table of which there is no row at all
  stale     keys whose newest row is older than the table's
  repeated  rows of a version that had been written before

The exit code is 1 if tidelog has lost, left stale or repeated anything, or if there is no result.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.polling import DLT, TAP, Dlt, TapPostgres, Tidelog, Tool, ToolFailedError
from benchmarks.setting import Store, keep_secret, machine, report, start_store, worker_environment
from benchmarks.workload import SEED_ROWS, WRITERS, OpenTransaction, Version, Workload

from tidelog_sandbox.cloud import Cloud
from tidelog_sandbox.postgres import Postgres

INTERVAL_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a tool.

    A delay is the seconds from a commit to the end of the poll that has written the version; what was never written
    has none.
    """

    tool: str
    polls: int
    rows: int
    lost: int
    stale: int
    repeated: int
    median_delay: float
    greatest_delay: float

    @property
    def exact(self) -> bool:
        """Whether all is there, once, as it is in the table."""
        return not (self.lost or self.stale or self.repeated)


@dataclass(frozen=True, slots=True)
class Setting:
    """What the tools are set up with."""

    scratch: Path
    cloud: Cloud
    store: Store
    server: Postgres
    lag: float


def main() -> None:
    """Let them run, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="for how long the writers write")
    parser.add_argument("--lag", type=float, default=10, help="of dlt's lag, and of what tap-postgres holds back")
    parser.add_argument("--open", action="store_true", help="a transaction writes a row first and commits at the end")
    parser.add_argument("--seed", type=int, default=1, help="of the writers' random numbers")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    try:
        with (
            tempfile.TemporaryDirectory(prefix="tidelog-bench-") as scratch,
            Cloud() as cloud,
            start_store(Path(scratch), cloud) as store,
            Postgres() as server,
            ExitStack() as stack,
        ):
            keep_secret(cloud, server)
            workload = Workload(server, arguments.seconds, arguments.seed)
            workload.prepare()
            setting = Setting(Path(scratch), cloud, store, server, arguments.lag)
            tools = [stack.enter_context(tool) for tool in set_up(setting)]
            run(tools, workload, stays_open=arguments.open)
            table = dict(workload.versions())
            verdicts = [judge(tool, table, workload.commits) for tool in tools]
            postgres = server.run("SHOW server_version").split()[0]
            circumstances = f"{machine()}, PostgreSQL {postgres}, {store.name}; load before it {load:.1f}"
    except ToolFailedError as error:
        sys.exit(f"no result: {error}")
    exact = all(verdict.exact for verdict in verdicts if verdict.tool.startswith("tidelog"))
    facts = {
        "seconds": arguments.seconds,
        "writers": WRITERS,
        "committed": len(workload.transactions),
        "rolled_back": workload.undone,
        "longest": round(max(workload.transactions), 3),
        "open": arguments.open,
        "rows": len(table),
        "versions": len(workload.commits) + SEED_ROWS,
        "circumstances": circumstances,
    }
    if arguments.json:
        print(json.dumps({**facts, "tools": [asdict(verdict) for verdict in verdicts], "exact": exact}, indent=1))
    else:
        print(describe(facts))
        print_table(verdicts)
        print(f"\ntidelog has {'every row, once, as it is in the table' if exact else 'FAILED'}.")
    sys.exit(0 if exact else 1)


def set_up(setting: Setting) -> Iterator[Tool]:
    """Start the tools, one after the other, in the order of the table."""
    lakes = (("lake", "64", "", "xmin:"), ("bound", "0", ", bound in time", "timestamp:"))
    for bucket, megabytes, how, strategy in lakes:
        setting.store.make_bucket(bucket)
        environment = worker_environment(setting.cloud, setting.store, bucket, TIME_BOUND_MEGABYTES=megabytes)
        yield Tidelog(
            f"tidelog {version('tidelog')}{how}",
            setting.scratch / bucket,
            environment=environment,
            store=setting.store,
            bucket=bucket,
            strategy=strategy,
        )
    yield Dlt(f"dlt {DLT}", setting.scratch / "dlt", server=setting.server, lag=0)
    name = f"dlt {DLT}, lag {setting.lag:g} s"
    yield Dlt(name, setting.scratch / "dlt-lag", server=setting.server, lag=setting.lag)
    yield TapPostgres(f"tap-postgres {TAP}", setting.scratch / "tap", server=setting.server, hold_back=0)
    name = f"tap-postgres {TAP}, {setting.lag:g} s held back"
    yield TapPostgres(name, setting.scratch / "tap-held", server=setting.server, hold_back=setting.lag)


def run(tools: Sequence[Tool], workload: Workload, *, stays_open: bool) -> None:
    """Have the writers write while all tools poll; then let each poll twice more."""
    session = OpenTransaction(workload.server) if stays_open else None
    report("first polls …")
    for tool in tools:
        tool.poll()
    report(f"{WRITERS} writers write for {workload.seconds:g} s …")
    done = threading.Event()
    with ThreadPoolExecutor(len(tools)) as pool:
        pollers = [pool.submit(poll_until, done, tool) for tool in tools]
        try:
            workload.write()
            if session:
                session.commit(workload)
        finally:
            done.set()
        report("last polls …")
        for poller in pollers:
            poller.result()
    for tool in tools:
        tool.poll()


def poll_until(done: threading.Event, tool: Tool) -> None:
    """Have a tool poll every other second, or as fast as it goes; when all is done, until nothing is held back."""
    while not done.is_set():
        began = time.monotonic()
        tool.poll()
        done.wait(max(0.0, began + INTERVAL_SECONDS - time.monotonic()))
    due = time.monotonic() + tool.settles
    tool.poll()
    while time.monotonic() < due:
        time.sleep(INTERVAL_SECONDS)
        tool.poll()


def judge(tool: Tool, table: dict[int, int], commits: dict[Version, float]) -> Verdict:
    """Compare what a tool has written with the table.

    Args:
        tool: the tool, with its polls.
        table: the version of each row by its id.
        commits: when each version was committed.
    """
    seen: dict[Version, float] = {}
    for poll in tool.polls:
        for each in poll.versions:
            seen.setdefault(each, poll.ended)
    newest: dict[int, int] = {}
    for key, number in seen:
        newest[key] = max(number, newest.get(key, number))
    # A poll may end in the moment between a commit and when its writer hears of it.
    delays = [max(0.0, at - commits[each]) for each, at in seen.items() if each in commits]
    written = sum(len(poll.versions) for poll in tool.polls)
    return Verdict(
        tool=tool.name,
        polls=len(tool.polls),
        rows=written,
        lost=sum(key not in newest for key in table),
        stale=sum(newest[key] < number for key, number in table.items() if key in newest),
        repeated=written - len(seen),
        median_delay=round(statistics.median(delays), 3),
        greatest_delay=round(max(delays), 3),
    )


def describe(facts: dict[str, Any]) -> str:
    """Say what has been written, and on what."""
    longest = f"the longest open for {facts['longest']:.1f} s"
    if facts["open"]:
        longest += ", and one all the while"
    return (
        f"{facts['writers']} writers, {facts['seconds']:g} s: {facts['committed']:,} transactions committed, {longest}"
        f"; {facts['rolled_back']:,} rolled back.\n{facts['rows']:,} rows in {facts['versions']:,} versions.\n"
        f"{facts['circumstances']}.\n"
    )


def print_table(verdicts: Sequence[Verdict]) -> None:
    """Print what came of each tool."""
    width = max(len(verdict.tool) for verdict in verdicts)
    columns = ("polls", "rows", "lost", "stale", "repeated", "median delay", "greatest")
    print(" " * width, *(f"{column:>{max(len(column), 7)}}" for column in columns), sep="  ")
    for verdict in verdicts:
        counts = (verdict.polls, verdict.rows, verdict.lost, verdict.stale, verdict.repeated)
        delays = (f"{verdict.median_delay:.1f} s", f"{verdict.greatest_delay:.1f} s")
        cells = (*(f"{count:,}" for count in counts), *delays)
        aligned = (f"{cell:>{max(len(column), 7)}}" for cell, column in zip(cells, columns, strict=True))
        print(f"{verdict.tool:<{width}}", *aligned, sep="  ")


if __name__ == "__main__":
    main()
