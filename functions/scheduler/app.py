"""The scheduler: one tick, one message per table."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

from tidelog.pipeline import build_source, client_config
from tidelog.queues import WorkQueue
from tidelog.scheduling import schedule
from tidelog.settings import SchedulerSettings, read_scheduler_settings
from tidelog.source import Source

logger = Logger()


@cache
def parts() -> tuple[SchedulerSettings, Source, WorkQueue]:
    """Build the parts once per process, when the first tick comes."""
    settings = read_scheduler_settings(os.environ)
    queue = WorkQueue(boto3.client("sqs", config=client_config()), settings.work_queue_url)
    return settings, build_source(settings.database), queue


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:  # noqa: ARG001 - Lambda passes both
    """Send the messages of a tick; return the tables, and what was left out and why."""
    settings, source, queue = parts()
    due = event.get("scheduled_time") or datetime.now(UTC).isoformat()
    logger.info("tick started", due=due)
    tick = schedule(due, source=source, queue=queue, selection=settings.selection)
    for left in tick.refused:
        logger.error("table refused", table=left.table, reason=left.reason)
    logger.info("tick done", tables=tick.tables, skipped=len(tick.skipped), refused=len(tick.refused))
    return asdict(tick)
