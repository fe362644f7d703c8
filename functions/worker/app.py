"""The worker: one message, one run."""

from __future__ import annotations

import gc

gc.disable()  # What is loaded stays: to look through it for garbage would take an eighth of the start.

import os
import time
from datetime import UTC, datetime
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from tidelog.events import SchemaChanged, TimelineStarted
from tidelog.letters import Received
from tidelog.pipeline import build_worker
from tidelog.runs import Run
from tidelog.settings import read_worker_settings
from tidelog.tables import TableName
from tidelog.working import Failed, Worker

_SPARE_SECONDS = 10  # for what comes after the last statement: commit, publish, project

logger = Logger()


@cache
def worker() -> Worker:
    """Build the parts once per process, when the first message comes."""
    try:
        return build_worker(read_worker_settings(os.environ), warn)
    finally:
        gc.freeze()
        gc.enable()


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Work off the messages of an event source mapping; those that come again are reported as failures."""
    failed = [record["messageId"] for record in event["Records"] if not work_off(record, context)]
    return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}


def work_off(record: dict[str, Any], context: LambdaContext) -> bool:
    """Work off one message; return whether it may be deleted."""
    started = time.monotonic()
    message = read(record)
    logger.append_keys(message_id=message.id, received=message.tries)
    logger.info("run started", body=message.body[:500])
    seconds = max(1.0, context.get_remaining_time_in_millis() / 1000 - _SPARE_SECONDS)
    done = worker().work_off(message, seconds=seconds, run=context.aws_request_id)
    if isinstance(done, Failed):
        report_failure(done)
        return done.then == "buried"
    report(done, time.monotonic() - started)
    return True


def read(record: dict[str, Any]) -> Received:
    """Return a record as the library has it."""
    attributes = record["attributes"]
    first = datetime.fromtimestamp(int(attributes["ApproximateFirstReceiveTimestamp"]) / 1000, UTC)
    return Received(
        id=record["messageId"],
        receipt=record["receiptHandle"],
        body=record["body"],
        queue=record["eventSourceARN"].rpartition(":")[2],
        group=attributes["MessageGroupId"],
        tries=int(attributes["ApproximateReceiveCount"]),
        first_seen=first.isoformat(timespec="seconds"),
    )


def report(run: Run, seconds: float) -> None:
    """Log what a run did, and emit it as metrics."""
    logger.info(
        "run done",
        table=run.table,
        outcome=run.outcome,
        rows=run.rows,
        bytes=run.bytes,
        sequential_id=run.sequential_id,
        timestamp_ingested=run.timestamp,
        segment=run.key,
        strategy=run.strategy,
        plan=run.plan,
        chunks=run.chunks,
        chunk=run.chunk,
        seconds=round(seconds, 3),
    )
    emit(
        run.table,
        ("Rows", MetricUnit.Count, run.rows),
        ("Bytes", MetricUnit.Bytes, run.bytes),
        ("Duration", MetricUnit.Seconds, seconds),
    )


def warn(table: TableName, changed: SchemaChanged | TimelineStarted) -> None:
    """Log that lines of a table are outdated, and what to do."""
    logger.warning(
        "lines written before are outdated",
        table=str(table),
        difference=changed.difference if isinstance(changed, SchemaChanged) else changed.reason,
        outdated=changed.outdated,
        remedy=changed.remedy,
    )


def report_failure(failed: Failed) -> None:
    """Log why a message failed and what becomes of it, and count it."""
    failure = failed.failure
    logger.error(
        "run failed",
        table=failure.table,
        error=failure.error,
        reason=failure.reason,
        hint=failure.hint,
        then=failed.then,
        again_in_seconds=failed.seconds,
        exc_info=failed.error,
    )
    emit(failure.table, ("Failures", MetricUnit.Count, 1))


def emit(table: str, *values: tuple[str, MetricUnit, float]) -> None:
    """Emit metrics of the stack. The table stands beside them: metrics of its own for each would cost by the month."""
    metrics = Metrics(service="")
    metrics.add_dimension("stack", os.environ["TIDELOG_STACK"])
    metrics.add_metadata("table", table)
    for name, unit, value in values:
        metrics.add_metric(name, unit, value)
    metrics.flush_metrics()
