"""What a stack costs by the month, item by item: arithmetic alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from tidelog_cli.prices import BYTES_A_SECOND, COMPRESSED, CORE_MEGABYTES, PART_BYTES, Prices, seconds_of_work

HOURS = 730
"""A month has so many."""
GB = 1e9

# What template.yaml makes: a test counts.
ALARMS, METRICS, DASHBOARDS, MAPPINGS = 9, 8, 1, 2
SCHEDULER_MEMORY = 256
LOOKS = 12

# Counted and measured on a deployed template.
_LISTS, _READS, _WRITES = (
    1,
    1,
    3,
)  # calls of S3: each run lists and reads the ledger's head; a segment is begun, ended, told of
_LOG_BYTES_OF_RUN, _LOG_BYTES_OF_TICK = 2200, 2000
_EVENT_BYTES = 2400
_BATCH = 10  # messages of one call
_RUN_SECONDS, _SEGMENT_SECONDS = 0.3, 0.2  # of a run that finds nothing; what one takes longer that writes
_TICK_SECONDS = 0.5

# Lambda has five pollers wait for messages of each queue, twenty seconds at a time.
# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
POLLERS, POLL_SECONDS = 5, 20


@dataclass(frozen=True, slots=True)
class Activity:
    """What a stack does in a month.

    Attributes:
        tables: how many there are.
        ticks: how many.
        sweeps: how many; each is a run of every table.
        looks: after so many ticks a table is read although nothing has changed in it.
        segments: how many are written.
        bytes: that are written to data/, compressed.
        stored: bytes in data/ by now.
        events: in all ledgers by now.
        run_seconds: that a worker takes for a run, where it was measured.
        tick_seconds: that the scheduler takes for a tick, where it was measured.
    """

    tables: int
    ticks: float
    sweeps: float
    segments: float
    bytes: float
    stored: float = 0
    events: float = 0
    run_seconds: float | None = None
    tick_seconds: float | None = None
    looks: int = LOOKS

    @property
    def runs(self) -> float:
        """Runs of tables: for their changes, each of which is taken for a segment, certain looks, and for sweeps."""
        stirred = min(self.tables * self.ticks, self.tables * self.ticks / self.looks + self.segments)
        return stirred + self.tables * self.sweeps


@dataclass(frozen=True, slots=True)
class Setup:
    """How a stack is deployed.

    Attributes:
        memory: of a worker, in MiB.
        workers: how many there may be at once, for live tables.
        log_days: how long logs are kept.
    """

    memory: int = 512
    workers: int = 4
    log_days: int = 30


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a bill: so much of something, at a price for so many of it."""

    service: str
    what: str
    quantity: float
    price: float
    per: float = 1
    unit: str = ""

    @property
    def dollars(self) -> float:
        """What it costs by the month."""
        return self.quantity * self.price / self.per


def worker_seconds(activity: Activity, setup: Setup) -> float:
    """Return the seconds of workers in a month: as measured, or estimated from runs and bytes."""
    if activity.run_seconds is not None:
        return activity.runs * activity.run_seconds
    reading = seconds_of_work(int(activity.bytes / COMPRESSED), 0, setup.memory)
    return activity.runs * _RUN_SECONDS + activity.segments * _SEGMENT_SECONDS + reading


def bill(activity: Activity, setup: Setup, prices: Prices) -> tuple[Item, ...]:
    """Return what a month costs, item by item; what is free each month is not taken off."""
    starts = activity.ticks + activity.sweeps
    tick_seconds = starts * (_TICK_SECONDS if activity.tick_seconds is None else activity.tick_seconds)
    parts = activity.segments + activity.bytes // PART_BYTES
    polls = MAPPINGS * POLLERS * HOURS * 3600 / POLL_SECONDS
    batches = min(activity.runs, starts * ceil(activity.tables / _BATCH))
    messages = batches + 2 * activity.runs  # sent in batches, which may not be full; received, deleted
    remembered = activity.ticks if activity.looks > 1 else 0  # what a tick reads of the one before, and writes
    logged = (activity.runs * _LOG_BYTES_OF_RUN + starts * _LOG_BYTES_OF_TICK) / GB
    kept = (activity.stored + activity.events * _EVENT_BYTES) / GB
    time = worker_seconds(activity, setup) * setup.memory / 1024
    scheduling = tick_seconds * SCHEDULER_MEMORY / 1024
    million = 1e6
    request, second = prices.lambda_request * million, prices.lambda_gb_second * million
    return (
        Item("Lambda", "runs of workers", activity.runs, request, million, "million"),
        Item("Lambda", "time of workers, GB-seconds", time, second, million, "million"),
        Item("Lambda", "ticks and sweeps", starts, request, million, "million"),
        Item("Lambda", "time of the scheduler, GB-seconds", scheduling, second, million, "million"),
        Item("EventBridge", "invocations of schedules", starts, prices.schedule * million, million, "million"),
        Item("SQS", "waiting for messages", polls, prices.sqs_fifo_request * million, million, "million"),
        Item("SQS", "messages", messages, prices.sqs_fifo_request * million, million, "million"),
        Item("S3", "LIST", activity.runs * _LISTS, prices.s3_write * 1e3, 1e3, "thousand"),
        Item("S3", "GET", activity.runs * _READS + remembered, prices.s3_read * 1e3, 1e3, "thousand"),
        Item("S3", "PUT", activity.segments * _WRITES + parts + remembered, prices.s3_write * 1e3, 1e3, "thousand"),
        Item("S3", "storage, GB", kept, prices.s3_gb_month, 1, "GB"),
        Item("Parameter Store", "standard parameters and calls", activity.runs + activity.segments + starts, 0.0),
        Item("CloudWatch", "logs written, GB", logged, prices.logs_gb, 1, "GB"),
        Item("CloudWatch", "logs kept, GB", logged * setup.log_days / 30.4, prices.logs_gb_month, 1, "GB"),
        Item("CloudWatch", "metrics", METRICS, prices.metric),
        Item("CloudWatch", "alarms", ALARMS, prices.alarm),
        Item("CloudWatch", "dashboard", DASHBOARDS, prices.dashboard),
        Item("Secrets Manager", "the database's secret", 1, prices.secret),
        Item("Secrets Manager", "reads of it", (setup.workers + 1) * HOURS, prices.secret_call * 1e4, 1e4, "10,000"),
    )


def assumptions(activity: Activity, setup: Setup) -> tuple[str, ...]:
    """Return what a bill rests on, in words."""
    rate = BYTES_A_SECOND * COMPRESSED * min(1.0, setup.memory / CORE_MEGABYTES) / 1e6
    run = f"a run takes {_RUN_SECONDS} s of a worker with {setup.memory} MiB, {_SEGMENT_SECONDS} s more where it writes"
    run += f", and a second for each {rate:.1f} MB of segments"
    if activity.run_seconds is not None:
        run = (
            f"a run takes {activity.run_seconds:.2f} s of a worker with {setup.memory} MiB, as CloudWatch has measured"
        )
    lines = f"a run logs {_LOG_BYTES_OF_RUN / 1e3:.1f} KB and a tick {_LOG_BYTES_OF_TICK / 1e3:.1f} KB"
    told = "every table is read at every tick"
    if activity.looks > 1:
        told = f"a tick reads tables that have changed, and each after {activity.looks} ticks (CertainLookTicks)"
    return (
        f"{activity.tables:,} tables, {activity.ticks:,.0f} ticks and {activity.sweeps:,.0f} sweeps a month",
        f"{told}: {activity.runs:,.0f} runs; a change is taken for a segment",
        f"{activity.segments:,.0f} segments a month, {activity.bytes / GB:,.2f} GB in all",
        run,
        f"{POLLERS} pollers wait for messages of each of the {MAPPINGS} queues, {POLL_SECONDS} s at a time",
        f"{lines}; logs are kept for {setup.log_days} days",
        f"the secret is read once an hour by each of {setup.workers} workers and the scheduler",
    )


def not_counted(prices: Prices, *, in_vpc: bool) -> tuple[str, ...]:
    """Return what a bill leaves out, in words."""
    network = f"an interface endpoint is ${prices.endpoint_hour * HOURS:,.2f} a month in each zone, a NAT gateway "
    network += f"${prices.nat_hour * HOURS:,.2f} and more by the gigabyte; the gateway endpoint of S3 is free"
    return (
        "what is free each month: a million requests of Lambda and of SQS, ten metrics, ten alarms, three dashboards …",
        f"the VPC's network: {network}" if in_vpc else f"a network, should SubnetIds be set: {network}",
        f"queries of the logs, those of the dashboard among them: ${prices.insights_gb} a GB looked through",
        "first snapshots, backfills and failed tries: tidelog backfill --dry-run has an estimate of its own",
        "the database, emails, taxes, and who reads the lake",
    )
