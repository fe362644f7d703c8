"""The worker: one message, one run."""

from __future__ import annotations

import os
import time
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from tidelog.errors import TidelogError
from tidelog.ingesting import Run
from tidelog.messages import decode
from tidelog.pipeline import Pipeline, build_pipeline
from tidelog.settings import read_worker_settings

_SPARE_SECONDS = 10  # for what comes after the last statement: commit, publish, project

logger = Logger()


@cache
def pipeline() -> Pipeline:
    """Build the parts once per process, when the first message comes."""
    return build_pipeline(read_worker_settings(os.environ))


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Work off the messages of an event source mapping; what failed is reported and comes again."""
    failed = [record["messageId"] for record in event["Records"] if not work_off(record, context)]
    return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}


def work_off(record: dict[str, Any], context: LambdaContext) -> bool:
    """Run one message; return whether it is done."""
    started = time.monotonic()
    received = record["attributes"].get("ApproximateReceiveCount")
    logger.append_keys(message_id=record["messageId"], received=received)
    try:
        message = decode(record["body"])
        logger.append_keys(table=message.table)
        logger.info("run started", tick=message.tick)
        seconds = max(1.0, context.get_remaining_time_in_millis() / 1000 - _SPARE_SECONDS)
        run = pipeline().ingestion.ingest(message.table_name, seconds=seconds)
    except TidelogError as error:
        logger.exception("run failed", error=type(error).__name__, reason=str(error))
        return False
    report(run, time.monotonic() - started)
    return True


def report(run: Run, seconds: float) -> None:
    """Log what a run did, and emit it as metrics of its table."""
    logger.info(
        "run done",
        outcome=run.outcome,
        rows=run.rows,
        bytes=run.bytes,
        sequential_id=run.sequential_id,
        timestamp_ingested=run.timestamp,
        segment=run.key,
        strategy=run.strategy,
        seconds=round(seconds, 3),
    )
    metrics = Metrics()
    metrics.add_dimension("stack", os.environ["TIDELOG_STACK"])
    metrics.add_dimension("table", run.table)
    metrics.add_metric("Rows", MetricUnit.Count, run.rows)
    metrics.add_metric("Bytes", MetricUnit.Bytes, run.bytes)
    metrics.add_metric("Duration", MetricUnit.Seconds, seconds)
    metrics.flush_metrics()
