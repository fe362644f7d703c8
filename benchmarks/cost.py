"""What does tidelog cost on AWS? Requests and GB-seconds are counted here, and multiplied by AWS's list prices.

A hundred tables, ticks as of every five minutes, in each of which a quarter of the tables has a hundred new rows: both
functions run their own code, and each call of AWS that they make is counted. Then one worker reads a large table, and
what that takes is multiplied up to a terabyte on the database's disk. Here a function has a whole processor; on Lambda
it has its share, so its processor time counts for as many times longer. What has a price whether or not anything runs
comes from `tidelog cost`. Beside that stand the prices that others publish, for the same work.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.idle import LOOKS, Stack, stack_of, stack_over
from benchmarks.results import Grid, Section, circumstances, parser
from benchmarks.setting import report, set_up

from tidelog_cli.costs import HOURS, SCHEDULER_MEMORY, Activity, Setup, bill
from tidelog_cli.prices import CHECKED, CORE_MEGABYTES, US_EAST_1, Prices
from tidelog_sandbox.postgres import Postgres

TABLES, CHANGED, ROWS = 100, 25, 100
"""Tables; how many of them change between two ticks, and by how many rows."""
TICKS = HOURS * 12
"""A month's, every five minutes."""
TERABYTE = 10**12
_READS = {"GetObject", "HeadObject"}
_FIXED = {"EventBridge", "CloudWatch", "Secrets Manager"}
_LARGE = "wide"
_FILL = """
CREATE SCHEMA {schema};
CREATE TABLE {schema}.{table} AS
SELECT g AS id, now() - g * interval '1 s' AS created_at, now() AS updated_at, g % 420 AS design, g % 48 AS staff,
       g % 280 AS counterparty, hashint8(g) & 8191 AS units,
       ((hashint8(g + 1) & 65535) / 100.0)::numeric(10, 2) AS price,
       (ARRAY['GBP', 'USD', 'EUR'])[g % 3 + 1] AS currency, now()::date AS delivery, g % 5 > 0 AS paid,
       jsonb_build_object('colour', 'blue', 'size', g % 12) AS attributes,
       CASE WHEN g % 3 = 0 THEN 'deliver to door ' || g || ', ring twice' END AS notes
FROM generate_series(1, {rows}) g;
VACUUM ANALYZE {schema}.{table};
"""
_AIRBYTE = "https://docs.airbyte.com/platform/cloud/managing-airbyte-cloud/manage-credits, read 2026-11-24"
_ESTUARY = "https://estuary.dev/pricing, as written down by API Evangelist on 2026-07-01"
_DMS = "https://aws.amazon.com/dms/pricing, as Infracost has it in github.com/gordonmurray/terraform_dms_redshift"
_FIVETRAN = "https://fivetran.com/docs/usage-based-pricing, read 2026-11-24"
_DMS_MONTH, _DMS_GB = 167.90, 50.80 / 400
"""Of a dms.r5.large for 730 hours in eu-west-1, and of a GB of its disk."""
_DMS_DISK = 50
_AIRBYTE_MONTH, _AIRBYTE_GB = 10.0, 10.0
_ESTUARY_CONNECTOR, _ESTUARY_GB = 100.0, 0.50


@dataclass(frozen=True, slots=True)
class Load:
    """A first load: what the worker said, the bytes of the table on disk, and of its rows as JSON lines."""

    said: Mapping[str, Any]
    size: int
    text: float

    @property
    def factor(self) -> float:
        """How many times as much a terabyte on disk is."""
        return TERABYTE / self.size


def main() -> None:
    """Measure, print and write."""
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, default=1_000_000, help="of the large table")
    arguments.add_argument("--ticks", type=int, default=2 * LOOKS)
    given = arguments.parse_args()
    load = os.getloadavg()[0]
    with set_up() as setting:
        with stack_of(setting, TABLES) as stack:
            report("first ticks …")
            stack.spend(3)
            report(f"{given.ticks} ticks, in each {CHANGED} changed tables …")
            ticks = [changed_tick(stack, setting.server, number) for number in range(given.ticks)]
            line = float(setting.server.run(f"SELECT avg(length(row_to_json(t)::text) + 1) FROM of{TABLES}.t1 t"))
        setting.server.run(_FILL.format(schema=_LARGE, table="t", rows=given.rows))
        size = int(setting.server.run(f"SELECT pg_table_size('{_LARGE}.t')"))
        text = float(setting.server.run(f"SELECT sum(length(row_to_json(t)::text) + 1) FROM {_LARGE}.t t"))
        with stack_over(setting, _LARGE) as stack:
            report(f"a first load of {given.rows:,} rows …")
            stack.tick()
            loaded = stack.work()
            loaded["stored"] = sum(each["Size"] for each in stored_objects(setting.store.client, _LARGE))
        where = circumstances(load, setting.versions())
    section = result(where, ticks, line, Load(loaded, size, text))
    section.print()
    section.write(given.results)


def changed_tick(stack: Stack, server: Postgres, number: int) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Insert rows into some tables, others each time, and run a tick; return what scheduler and worker say."""
    tables = [(number * CHANGED + each) % TABLES + 1 for each in range(CHANGED)]
    server.run(
        "".join(
            f"INSERT INTO of{TABLES}.t{table} SELECT g, now(), 'row ' || g "
            f"FROM generate_series({1000 + number * ROWS}, {999 + (number + 1) * ROWS}) g;"
            for table in tables
        )
    )
    return stack.tick(), stack.work()


def stored_objects(s3: Any, bucket: str) -> Iterator[Mapping[str, Any]]:
    """List the segments of a lake."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="data/"):
        yield from page.get("Contents", [])


def gb_seconds(said: Mapping[str, Any], memory: int) -> float:
    """Return what an invocation takes on Lambda: with less than a whole processor its processor time takes longer.

    Source: Lambda gives processors in proportion to memory, a whole one at 1,769 MB
    (https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html).
    """
    slower = max(0.0, CORE_MEGABYTES / memory - 1)
    return float(said["seconds"] + said["cpu"] * slower) * memory / 1024


def dollars(said: Iterable[Mapping[str, Any]], prices: Prices = US_EAST_1) -> dict[str, float]:
    """Return what the calls of AWS of some invocations cost. Parameter Store is free at its standard throughput."""
    spent = {"requests of S3": 0.0, "requests of SQS": 0.0}
    for each in said:
        for name, count in each["calls"].items():
            service, _, operation = name.partition(".")
            if service == "s3":
                spent["requests of S3"] += count * (prices.s3_read if operation in _READS else prices.s3_write)
            elif service == "sqs":
                spent["requests of SQS"] += count * prices.sqs_fifo_request
    return spent


def month(ticks: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], setup: Setup) -> dict[str, float]:
    """Return the bill of a month in dollars: what is counted, and what has a price whether or not anything runs."""
    each = TICKS / len(ticks)
    scheduling, working = zip(*ticks, strict=True)
    runs = sum(done["messages"] for done in working) * each
    seconds = sum(gb_seconds(said, SCHEDULER_MEMORY) for said in scheduling)
    seconds += sum(gb_seconds(said, setup.memory) for said in working)
    spent = {name: amount * each for name, amount in dollars([*scheduling, *working]).items()}
    spent["requests of SQS"] += (
        2 * runs * US_EAST_1.sqs_fifo_request
    )  # Lambda itself receives messages and deletes them.
    fixed = Counter[str]()
    for item in bill(Activity(TABLES, TICKS, sweeps=30, segments=CHANGED * TICKS, bytes=0), setup, US_EAST_1):
        if item.service in _FIXED or item.what == "waiting for messages":
            fixed[f"{item.service}, as `tidelog cost` has it"] += item.dollars  # type: ignore[assignment]  # a float
    return {
        "Lambda, time": seconds * each * US_EAST_1.lambda_gb_second,
        "Lambda, requests": (TICKS + runs) * US_EAST_1.lambda_request,
        **spent,
        **fixed,
    }


def first_load(load: Load, setup: Setup) -> dict[str, float]:
    """Return the bill of a terabyte's first load in dollars, and of keeping it for a month."""
    said = load.said
    spent = dollars([said])
    stored = said["stored"] * load.factor
    return {
        "Lambda, time": gb_seconds(said, setup.memory) * load.factor * US_EAST_1.lambda_gb_second,
        **{name: amount * load.factor for name, amount in spent.items()},
        f"S3, a month of {stored / 1e9:,.0f} GB": stored / 1e9 * US_EAST_1.s3_gb_month,
    }


def result(
    where: str, ticks: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], line: float, load: Load
) -> Section:
    """Say what it costs."""
    setup = Setup()
    bills = month(ticks, setup), first_load(load, setup)
    ours, ours_loaded = (sum(each.values()) for each in bills)
    moved = TICKS * CHANGED * ROWS * line / 1e9
    loaded = load.text * load.factor / 1e9
    others = [
        ("tidelog", "", f"{ours:,.2f}", f"{ours_loaded:,.2f}"),
        ("AWS DMS, one dms.r5.large", _DMS, f"{_DMS_MONTH + _DMS_DISK * _DMS_GB:,.2f}", "in the month's"),
        ("Airbyte Cloud", _AIRBYTE, f"{_AIRBYTE_MONTH + moved * _AIRBYTE_GB:,.2f}", f"{loaded * _AIRBYTE_GB:,.2f}"),
        ("Estuary", _ESTUARY, f"{2 * _ESTUARY_CONNECTOR + moved * _ESTUARY_GB:,.2f}", f"{loaded * _ESTUARY_GB:,.2f}"),
        ("Fivetran", _FIVETRAN, "by active rows", "by active rows"),
    ]
    work = f"A month of {TABLES} tables every five minutes, {CHANGED} of which have {ROWS} new rows each time"
    titles = (
        f"{work} ({moved:,.1f} GB of lines a month):",
        f"A first load of a terabyte on the database's disk ({loaded:,.0f} GB of lines):",
    )
    grids = [
        Grid(("what", "$"), [(name, f"{amount:,.2f}") for name, amount in each.items()], title)
        for each, title in zip(bills, titles, strict=True)
    ]
    grids.append(Grid(("", "price", "$ a month", "$ a terabyte"), others, "Beside what others publish:", text=2))
    note = (
        f"AWS's list prices of us-east-1 as of {CHECKED}, nothing that is free each month taken off; workers have "
        f"{setup.memory} MiB. A segment is stored once; DMS's price is of eu-west-1 and with {_DMS_DISK} GB of disk. "
        "Airbyte counts bytes as its own protocol has them, which are more than the lines that are reckoned with here."
    )
    return Section("cost", "What it costs", where, grids, [], [note])


if __name__ == "__main__":
    main()
