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

import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version

from benchmarks.environments import DLT, TAP
from benchmarks.polling import Dlt, TapPostgres, Tidelog, Tool
from benchmarks.processes import ToolFailedError
from benchmarks.results import Bar, Grid, Section, circumstances, parser
from benchmarks.setting import Setting, report, set_up
from benchmarks.workload import SEED_ROWS, WRITERS, OpenTransaction, Version, Workload

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


def main() -> None:
    """Let them run, and say what came of it."""
    arguments = parser(__doc__)
    arguments.add_argument("--seconds", type=float, default=60, help="for how long the writers write")
    arguments.add_argument("--lag", type=float, default=10, help="of dlt's lag, and of what tap-postgres holds back")
    arguments.add_argument(
        "--open", action="store_true", help="a transaction writes a row first and commits at the end"
    )
    arguments.add_argument("--seed", type=int, default=1, help="of the writers' random numbers")
    given = arguments.parse_args()
    load = os.getloadavg()[0]
    try:
        with set_up({}) as setting, ExitStack() as stack:
            workload = Workload(setting.server, given.seconds, given.seed)
            workload.prepare()
            tools = [stack.enter_context(tool) for tool in tools_of(setting, given.lag)]
            run(tools, workload, stays_open=given.open)
            table = dict(workload.versions())
            verdicts = [judge(tool, table, workload.commits) for tool in tools]
            where = circumstances(load, setting.versions())
    except ToolFailedError as error:
        sys.exit(f"no result: {error}")
    section = result(verdicts, where, describe(workload, len(table), stays_open=given.open))
    section.print()
    section.write(given.results)
    sys.exit(0 if all(verdict.exact for verdict in verdicts if verdict.tool.startswith("tidelog")) else 1)


def tools_of(setting: Setting, lag: float) -> Iterator[Tool]:
    """Start the tools, one after the other, in the order of the table."""
    lakes = (("lake", "64", "", "xmin:"), ("bound", "0", ", bound in time", "timestamp:"))
    for bucket, megabytes, how, strategy in lakes:
        setting.make_lake(bucket)
        yield Tidelog(
            f"tidelog {version('tidelog')}{how}",
            setting.scratch / bucket,
            environment=setting.environment(bucket, TIME_BOUND_MEGABYTES=megabytes),
            store=setting.store,
            bucket=bucket,
            strategy=strategy,
        )
    yield Dlt(f"dlt {DLT}", setting.scratch / "dlt", server=setting.server, lag=0)
    yield Dlt(f"dlt {DLT}, lag {lag:g} s", setting.scratch / "dlt-lag", server=setting.server, lag=lag)
    yield TapPostgres(f"tap-postgres {TAP}", setting.scratch / "tap", server=setting.server, hold_back=0)
    name = f"tap-postgres {TAP}, {lag:g} s held back"
    yield TapPostgres(name, setting.scratch / "tap-held", server=setting.server, hold_back=lag)


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


def describe(workload: Workload, rows: int, *, stays_open: bool) -> str:
    """Say what has been written."""
    held = ", and one all the while" if stays_open else ""
    return (
        f"{WRITERS} writers, {workload.seconds:g} s, polls every {INTERVAL_SECONDS:g} s: "
        f"{len(workload.transactions):,} transactions committed, the longest open for "
        f"{max(workload.transactions):.1f} s{held}; {workload.undone:,} rolled back; {rows:,} rows in "
        f"{len(workload.commits) + SEED_ROWS:,} versions:"
    )


def result(verdicts: Sequence[Verdict], where: str, written: str) -> Section:
    """Say what came of each tool."""
    headings = ("", "polls", "rows", "lost", "stale", "repeated", "median delay", "greatest")
    rows = []
    for verdict in verdicts:
        counts = (verdict.polls, verdict.rows, verdict.lost, verdict.stale, verdict.repeated)
        delays = (f"{verdict.median_delay:.1f} s", f"{verdict.greatest_delay:.1f} s")
        rows.append((verdict.tool, *(f"{count:,}" for count in counts), *delays))
    wrong = sum(each.lost + each.stale + each.repeated for each in verdicts if each.tool.startswith("tidelog"))
    bar = Bar("keys that tidelog has lost or left stale, and rows that it has repeated", wrong, 0, least=False)
    return Section("cursors", "What a timestamp cursor loses", where, [Grid(headings, rows, written)], [bar])


if __name__ == "__main__":
    main()
