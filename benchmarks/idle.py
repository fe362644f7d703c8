"""What does it cost to find that nothing has changed? Ticks over 1, 100 and 1,000 tables; and 10,000 to schedule.

Both functions run their own code, warm, against a PostgreSQL of this machine, a real S3 server and the sandbox's SQS
and Parameter Store. All that they say to these goes through relays, which count how often they ask and wait. After the
first ticks nothing changes. Then come as many ticks as it takes until each table was looked at once, which a tick does
with a share of the tables that have not changed; the same again, in a process that has seen them by then; and one tick
that asks for all of them, as a person may.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from benchmarks.functions import WORK
from benchmarks.processes import Process
from benchmarks.results import Bar, Grid, Section, circumstances, parser
from benchmarks.setting import Setting, on_lambda, report, set_up

from tidelog_sandbox.postgres import USER

LOOKS = 12
"""The template's `CertainLookTicks`."""
_SECRET = "relayed"  # noqa: S105  # its name
_NOTE = (
    "A trip is a question for whose answer a function waits. For a table that is not looked at there is none, but its "
    "part of the scheduler's few."
)
_LOOKS = ("a process's first", "its later ones", "all are asked for")
_SETTLING = 3
_TABLES = """
CREATE SCHEMA {schema};
SELECT format('CREATE TABLE {schema}.t%s (id integer PRIMARY KEY, updated_at timestamptz NOT NULL, note text);', n)
FROM generate_series(1, {count}) n \\gexec
SELECT format('INSERT INTO {schema}.t%s SELECT g, now(), ''row '' || g FROM generate_series(1, 10) g;', n)
FROM generate_series(1, {count}) n \\gexec
ANALYZE;
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """What some ticks took.

    Attributes:
        ticks: how many.
        looked: tables that were looked at.
        scheduler: seconds of the scheduler.
        worker: seconds of the worker.
        scheduling: exchanges of the scheduler with the database and with AWS.
        working: exchanges of the worker.
    """

    ticks: int
    looked: int
    scheduler: float
    worker: float
    scheduling: tuple[int, int]
    working: tuple[int, int]


class Stack:
    """Both functions, over some tables."""

    def __init__(self, functions: Process, relay: Process) -> None:
        self._functions = functions
        self._relay = relay
        self._due = datetime(2026, 1, 1, tzinfo=UTC)

    def tick(self, *, everything: bool = False) -> dict[str, Any]:
        """Invoke the scheduler; return what it says, with the exchanges."""
        self._due += timedelta(minutes=5)
        return self._counted(json.dumps({"scheduled_time": self._due.isoformat(), "all": everything}))

    def work(self) -> dict[str, Any]:
        """Invoke the worker with all messages; return what it says, with the exchanges."""
        return self._counted(WORK)

    def spend(self, ticks: int, *, everything: bool = False) -> Spent:
        """Run ticks and what they lead to; return what they took in all."""
        said = [(self.tick(everything=everything), self.work()) for _ in range(ticks)]
        return Spent(
            ticks,
            sum(done["messages"] for _, done in said),
            sum(tick["seconds"] for tick, _ in said),
            sum(done["seconds"] for _, done in said),
            (sum(tick["database"] for tick, _ in said), sum(tick["aws"] for tick, _ in said)),
            (sum(done["database"] for _, done in said), sum(done["aws"] for _, done in said)),
        )

    def _counted(self, line: str) -> dict[str, Any]:
        self._relay.ask("")
        said: dict[str, Any] = json.loads(self._functions.ask(line))
        database, *aws = json.loads(self._relay.ask(""))
        return said | {"database": database, "aws": sum(aws)}


def main() -> None:
    """Measure, print and write."""
    arguments = parser(__doc__)
    arguments.add_argument("--tables", default="1,100,1000", help="that nothing changes in")
    arguments.add_argument("--scheduled", type=int, default=10_000, help="that a message is sent for")
    given = arguments.parse_args()
    load = os.getloadavg()[0]
    idle: dict[int, tuple[Spent, ...]] = {}
    with set_up() as setting:
        for count in map(int, given.tables.split(",")):
            with stack_of(setting, count) as stack:
                report(f"first ticks over {count:,} tables …")
                stack.spend(_SETTLING)
                report("idle ticks …")
                idle[count] = stack.spend(LOOKS), stack.spend(LOOKS), stack.spend(1, everything=True)
        with stack_of(setting, given.scheduled) as stack:
            report(f"scheduling {given.scheduled:,} tables …")
            scheduled = [stack.tick() for _ in range(2)]
        where = circumstances(load, setting.versions())
    section = result(where, idle, scheduled)
    section.print()
    section.write(given.results)


@contextmanager
def stack_of(setting: Setting, count: int) -> Iterator[Stack]:
    """Make tables in a schema of their own, and start both functions for them."""
    report(f"making {count:,} tables …")
    schema = f"of{count}"
    setting.server.run(_TABLES.format(schema=schema, count=count))
    with stack_over(setting, schema) as stack:
        yield stack


@contextmanager
def stack_over(setting: Setting, schema: str) -> Iterator[Stack]:
    """Start both functions for the tables of a schema, behind relays."""
    setting.make_lake(schema)
    endpoints = [setting.cloud.endpoint_url, setting.store.endpoint]
    targets = [f"127.0.0.1:{setting.server.port}", *(urlsplit(endpoint).netloc for endpoint in endpoints)]
    relay = Process([sys.executable, "-m", "benchmarks.relay", *targets], os.environ, setting.scratch / "relay.log")
    with closing(relay):
        database, aws, s3 = json.loads(relay.said)
        secret = {"host": "127.0.0.1", "port": database, "username": USER, "password": setting.server.password}
        name = f"{_SECRET}-{schema}"
        setting.cloud.client("secretsmanager").create_secret(Name=name, SecretString=json.dumps(secret))
        given = setting.environment(schema, DATABASE_SECRET=name, INCLUDE=f"{schema}.*", CERTAIN_LOOK_TICKS=str(LOOKS))
        relayed = {
            setting.cloud.endpoint_url: f"http://127.0.0.1:{aws}",
            setting.store.endpoint: f"http://127.0.0.1:{s3}",
        }
        for before, behind in relayed.items():
            given = {name: value.replace(before, behind) for name, value in given.items()}
        given["TIDELOG_BENCH_SQS"] = setting.cloud.endpoint_url
        command = on_lambda("functions")
        with closing(Process(command, given, setting.scratch / "functions.log")) as functions:
            yield Stack(functions, relay)


def result(where: str, idle: dict[int, tuple[Spent, ...]], scheduled: Sequence[dict[str, Any]]) -> Section:
    """Say what it took."""
    headings = (
        *("tables", "looks", "looked at a tick", "scheduler s a tick", "worker s a tick", "ms a look"),
        *("database trips a tick", "AWS calls a tick", "database trips a look", "AWS calls a look"),
    )
    rows = [row(count, *pair) for count, all_ in idle.items() for pair in zip(_LOOKS, all_, strict=True)]
    ticks = [
        (f"{each['tables']:,}", name, f"{each['seconds']:.2f}", f"{each['database']:,}", f"{each['aws']:,}")
        for name, each in zip(("the first", "the next"), scheduled, strict=True)
    ]
    grids = [
        Grid(headings, rows, f"Nothing has changed; one in {LOOKS} is looked at all the same, or all are:", text=2),
        Grid(("tables", "tick", "scheduler s", "database trips", "AWS calls"), ticks, "All have changed:"),
    ]
    most = max(idle)
    _, turns, _ = idle[most]
    slowest = max(each["seconds"] for each in scheduled)
    return Section(
        "idle",
        "Idle tables, and many",
        where,
        grids,
        [
            Bar("database trips a table that is looked at", turns.working[0] / turns.looked, 1, least=False),
            Bar("AWS calls a table that is looked at", turns.working[1] / turns.looked, 1, least=False),
            Bar(f"worker time of a tick over {most:,} idle tables", turns.worker / LOOKS, 2, least=False, unit=" s"),
            Bar(f"scheduling {scheduled[0]['tables']:,} tables", slowest, 10, least=False, unit=" s"),
        ],
        [f"Of {turns.ticks} ticks in turn, the next {turns.ticks}, and one more. {_NOTE}"],
    )


def row(count: int, looks: str, spent: Spent) -> tuple[str, ...]:
    """Return the line of a table that says what ticks took."""
    looked, ticks = spent.looked, spent.ticks
    look = (
        [f"{1000 * spent.worker / looked:.1f}", *(f"{each / looked:.1f}" for each in spent.working)]
        if looked
        else [""] * 3
    )
    tick = (f"{spent.scheduler / ticks:.3f}", f"{spent.worker / ticks:.3f}")
    trips = (f"{each / ticks:.0f}" for each in spent.scheduling)
    return f"{count:,}", looks, f"{looked / ticks:.1f}", *tick, look[0], *trips, *look[1:]


if __name__ == "__main__":
    main()
