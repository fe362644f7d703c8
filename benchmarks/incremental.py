"""What does it take to find a thousand changed rows? tidelog beside its peers, and a large table beside a small one.

First: a thousand random rows of a large table are updated and then extracted, each time by all of them in turn, as
whole processes. tidelog finds the place to go on from in its ledger; the peers are given the time after which rows are
new, which takes them no time. A worker that runs already, as Lambda keeps them, is measured too. Second: the same
change to the large and to a small table, in turns, in such a worker. Both are read through their indexed timestamps.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime

from benchmarks.peers import PEERS, PLAIN_PEER, Peer, Task, lines
from benchmarks.processes import Meter, Process, Took, ToolFailedError, run
from benchmarks.results import Bar, Grid, Section, circumstances, parser
from benchmarks.setting import Setting, on_lambda, report, set_up
from benchmarks.tables import TIMESTAMPS, fill

from tidelog_sandbox.postgres import Postgres

CHANGED = 1000
LAKE = "lake"
_FILL_FACTOR = 90
"""An updated row stays on its page, so that in both tables what has changed lies scattered."""
_SPREAD_SECONDS = 3 * 365 * 24 * 3600
"""Within which the rows of a table were created, from 2023 on."""
_NOTE = (
    f"Each increment was looked at: it is of {CHANGED:,} rows. The peers were given the time to go on from; where the "
    "table stands, tidelog finds out itself."
)


@dataclass(slots=True)
class Subject:
    """A table that is measured.

    Attributes:
        name: of it.
        rows: that it has.
        snapshot: seconds of its first snapshot.
        warm: seconds of each increment in a worker that runs.
        whole: what each increment took a worker that was started for it.
    """

    name: str
    rows: int
    snapshot: float = 0
    warm: list[float] = field(default_factory=list)
    whole: list[Took] = field(default_factory=list)


@dataclass(slots=True)
class Rival:
    """A peer, and what its increments took."""

    peer: Peer
    runs: list[Took] = field(default_factory=list)
    failed: str = ""


def main() -> None:
    """Measure, print and write."""
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, default=2_000_000)
    arguments.add_argument("--small", type=int, default=200_000)
    arguments.add_argument("--runs", type=int, default=5)
    given = arguments.parse_args()
    load = os.getloadavg()[0]
    large, small = Subject("large", given.rows), Subject("small", given.small)
    rivals = [Rival(peer) for peer in PEERS if peer.kind != "limit" or peer.name == PLAIN_PEER]
    chance = random.Random(1)  # noqa: S311  # the same rows each time
    with set_up() as setting:
        setting.make_lake(LAKE)
        environment = setting.environment(LAKE, LOOK_BACK_SECONDS="1", TIME_BOUND_MEGABYTES="1")
        with closing(Process(on_lambda("worker"), environment, setting.scratch / "worker.log")) as worker:
            for table in (large, small):
                step = _SPREAD_SECONDS / table.rows
                fill(setting.server, table.name, table.rows, step=step, indexed=TIMESTAMPS, fillfactor=_FILL_FACTOR)
                report(f"first snapshot of {table.rows:,} rows …")
                table.snapshot = ingest(worker, table.name, table.rows)
            setting.server.run("CHECKPOINT")
            for round_ in range(given.runs + 1):
                report(f"run {round_} of {given.runs} …" if round_ else "warming up …")
                for table in (large, small) if round_ % 2 else (small, large):
                    change(setting.server, table, chance)
                    table.warm.append(ingest(worker, table.name, CHANGED))
                extract(setting, environment, large, rivals, chance)
        where = circumstances(load, setting.versions())
    section = result(where, large, small, rivals)
    section.print()
    section.write(given.results)


def change(server: Postgres, table: Subject, chance: random.Random) -> str:
    """Update some rows of a table; return a time between the changes before and these (ISO 8601)."""
    time.sleep(1.1)  # The look-back is a second: each increment is of one change.
    before = datetime.now(UTC).isoformat()
    keys = ",".join(str(key) for key in chance.sample(range(1, table.rows + 1), CHANGED))
    server.run(
        f"UPDATE {table.name} SET last_updated = clock_timestamp() WHERE order_id = ANY ('{{{keys}}}'::bigint[])"
    )
    return before


def ingest(worker: Process, table: str, rows: int) -> float:
    """Have a worker ingest so many rows of a table; return the seconds that it took."""
    started = time.perf_counter()
    said = json.loads(worker.ask(f"public.{table}"))
    seconds = time.perf_counter() - started
    if said["rows"] != rows:
        sys.exit(f"a run of {table} has {said['rows']} rows of {rows}, found by {said['strategy']}")
    return seconds


def extract(
    setting: Setting, environment: dict[str, str], table: Subject, rivals: Sequence[Rival], chance: random.Random
) -> None:
    """Change a table, and have all of them extract that, each as a process of its own."""
    since = change(setting.server, table, chance)
    table.whole.append(whole(setting, environment, table.name))
    for rival in rivals:
        if rival.failed:
            continue
        directory = setting.directory("peer")
        try:
            pipe = rival.peer.pipe(Task(setting.server, table.name, directory, since))
            rival.runs.append(run(pipe, setting.server, setting.scratch / "log", seconds=600))
            found = sum(1 for _ in lines(directory))
            if found != CHANGED:
                rival.failed = f"{found:,} rows of {CHANGED:,} were written"
        except ToolFailedError as error:
            report(f"{error}")
            rival.failed = error.brief


def whole(setting: Setting, environment: dict[str, str], table: str) -> Took:
    """Have a worker process of its own ingest a table."""
    meter = Meter(setting.server, setting.scratch / "log")
    said = meter.converse(on_lambda("worker"), environment, f"public.{table}")
    took = meter.stop()
    if said["rows"] != CHANGED or not said["strategy"].startswith("timestamp:"):
        sys.exit(f"an increment of {table} has {said['rows']} rows of {CHANGED}, found by {said['strategy']}")
    return took


def result(where: str, large: Subject, small: Subject, rivals: Sequence[Rival]) -> Section:
    """Say what it took. The first round of each is not counted."""
    ours = statistics.median(took.seconds for took in large.whole[1:])
    rows = [process_row("tidelog worker, the whole process", large.whole[1:], ours)]
    rows += [process_row(each.peer.name, each.runs[1:], ours) for each in rivals if not each.failed]
    rows.sort(key=lambda row: float(row[1]))
    warm = [statistics.median(table.warm[1:]) for table in (large, small)]
    rows.insert(0, ("tidelog worker that runs already", f"{warm[0]:.3f}", f"{warm[0] / ours:.2f}", "", "", ""))
    rows += [(each.peer.name, each.failed, "", "", "", "") for each in rivals if each.failed]
    headings = ("", "seconds", "ratio", "client CPU s", "server CPU s", "peak MB")
    sizes = [
        (
            f"{table.rows:,}",
            f"{table.snapshot:.1f}",
            f"{each:.3f}",
            f"{min(table.warm[1:]):.3f}",
            f"{max(table.warm[1:]):.3f}",
        )
        for table, each in zip((large, small), warm, strict=True)
    ]
    return Section(
        "incremental",
        "An increment",
        where,
        [
            Grid(headings, rows, f"{CHANGED:,} changed rows of {large.rows:,}:"),
            Grid(
                ("rows of the table", "first snapshot, s", "increment, s", "fastest", "slowest"),
                sizes,
                "The same change to tables of two sizes, in a worker that runs already:",
            ),
        ],
        bars(ours, warm, rivals),
        [f"Medians of {len(large.warm) - 1} runs in turns. {_NOTE}"],
    )


def process_row(name: str, runs: Sequence[Took], ours: float) -> tuple[str, ...]:
    """Return the line of a table that says what some whole processes took."""
    seconds, client, server, peak = (
        statistics.median(getattr(took, what) for took in runs) for what in ("seconds", "client", "server", "peak")
    )
    return name, f"{seconds:.3f}", f"{seconds / ours:.2f}", f"{client:.2f}", f"{server:.2f}", f"{peak:.0f}"


def bars(ours: float, warm: Sequence[float], rivals: Sequence[Rival]) -> list[Bar]:
    """Say what was reached."""
    tools = [
        (statistics.median(took.seconds for took in each.runs[1:]), each.peer.name)
        for each in rivals
        if each.peer.kind == "tool" and not each.failed
    ]
    fastest, name = min(tools, default=(0, "the fastest tool: none ran"))
    return [
        Bar(f"ms of an increment of {CHANGED:,} rows, in a worker that runs already", warm[0] * 1000, 100, least=False),
        Bar(f"a whole process over that of {name}, how much faster", fastest / ours or None, 2, unit=" times"),
        Bar("the large table's increment over the small one's", warm[0] / warm[1], 1.5, least=False, unit=" times"),
    ]


if __name__ == "__main__":
    main()
