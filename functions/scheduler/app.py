"""The scheduler: one tick, one message per table; then a look at whether all is well. Or a sweep, or a backfill."""

from __future__ import annotations

import gc

gc.disable()  # What is loaded stays: to look through it for garbage would take an eighth of the start.

import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from tidelog.errors import TidelogError
from tidelog.requesting import read_ingests, read_sweep
from tidelog.scheduler import Scheduler, build_scheduler
from tidelog.scheduling import Tick, schedule, schedule_sweep, schedule_tables
from tidelog.settings import SchedulerSettings, read_scheduler_settings
from tidelog.tables import TableName
from tidelog.watching import Sight

logger = Logger()


@cache
def parts() -> tuple[SchedulerSettings, Scheduler]:
    """Build the parts once per process, when the first tick comes."""
    try:
        settings = read_scheduler_settings(os.environ)
        return settings, build_scheduler(settings, lambda why: logger.warning("every table is asked for", reason=why))
    finally:
        gc.freeze()
        gc.enable()


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:  # noqa: ARG001 - Lambda passes both
    """Send the messages of a tick; return the tables, and what was left out and why.

    A tick of the schedule leaves out idle tables. One without `scheduled_time`, of a request or with `all` does not.
    Invoked with an `ingest`, `backfill` or `sweep` request it checks that, sends it, and returns what it will take, or
    what is wrong with it; asked for the `horizon` it says who holds it. The second schedule asks for a sweep too, and
    has a failure tried again.
    """
    settings, scheduler = parts()
    if event.get("type") == "sweep" and "scheduled_time" in event:
        return {"tables": sweep(settings, scheduler, [], tick=event["scheduled_time"])}
    if "type" in event:
        return answer(lambda: take_request(settings, scheduler, event))
    due = event.get("scheduled_time") or datetime.now(UTC).isoformat()
    logger.info("tick started", due=due)
    configuration = scheduler.configurations.follow()
    everything = "scheduled_time" not in event or bool(event.get("all") or event.get("request"))
    outset = scheduler.idling.begin(configuration, settings.selection, everything=everything)
    tick = schedule(
        due,
        source=scheduler.source,
        queue=scheduler.queue,
        selection=settings.selection,
        configuration=configuration,
        request=event.get("request", ""),
        outset=outset,
    )
    asked = scheduler.idling.end(outset, due, tick.stirred, tick.idle)
    report_tick(tick, settings.stack)
    note_tick(scheduler, tick)
    report_sight(scheduler.watching.look(tick.stirred, outset.known, asked), settings.stack)
    counts = {"unchanged": len(tick.unchanged), "looks": len(tick.looks)}
    return {**msgspec.to_builtins(tick), "tables": [str(table) for table in tick.tables], **counts}


def take_request(settings: SchedulerSettings, scheduler: Scheduler, event: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked for, and return what comes of it.

    Raises:
        TidelogError: what is wrong with it.
    """
    if event["type"] == "horizon":
        horizon, seconds = scheduler.watching.horizon()
        if not horizon.held:
            return {"horizon": None}
        return {"horizon": {"seconds": round(seconds), "holder": horizon.who, "remedy": horizon.remedy}}
    request = uuid.uuid4().hex
    if event["type"] == "ingest":
        return {"request": request, "tables": ingest(settings, scheduler, read_ingests(event), request)}
    if event["type"] == "sweep":
        tables = sweep(settings, scheduler, read_sweep(event), request=request)
        return {"sweeps": [{"table": table, "request": request} for table in tables]}
    selection = scheduler.configurations.follow().selection(settings.selection)
    backfills = msgspec.to_builtins(scheduler.requests.take(event, selection))
    logger.info("request taken", backfills=backfills)
    return {"backfills": backfills}


def ingest(settings: SchedulerSettings, scheduler: Scheduler, tables: list[TableName], request: str) -> list[str]:
    """Have some tables ingested now; return which."""
    found = schedule_tables(
        tables,
        request=request,
        source=scheduler.source,
        queue=scheduler.queue,
        selection=settings.selection,
        configuration=scheduler.configurations.follow(),
    )
    logger.info("ingestion sent", tables=len(found), request=request)
    return [str(table) for table in found]


def sweep(settings: SchedulerSettings, scheduler: Scheduler, tables: list[TableName], **why: str) -> list[str]:
    """Have tables swept, all of them where none is named; return which."""
    found = schedule_sweep(
        tables,
        **why,
        source=scheduler.source,
        queue=scheduler.queue,
        selection=scheduler.configurations.follow().selection(settings.selection),
    )
    logger.info("sweep sent", tables=len(found), why=why)
    return [str(table) for table in found]


def answer(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Answer a request. What is wrong with it is told to who asks, and no failure of the function."""
    try:
        return ask()
    except TidelogError as error:
        logger.warning("request refused", error=type(error).__name__, reason=error.what)
        return {
            "error": {
                "kind": type(error).__name__,
                "operation": error.operation,
                "subject": error.subject,
                "reason": error.reason,
                "hint": error.hint,
            }
        }


def report_tick(tick: Tick, stack: str) -> None:
    """Log what a tick did, and count it: an alarm listens for the next one."""
    for left in tick.refused:
        logger.error("table refused", table=left.table, reason=left.reason)
    logger.info(
        "tick done",
        tables=len(tick.tables),
        unchanged=len(tick.unchanged),
        skipped=len(tick.skipped),
        refused=len(tick.refused),
        configuration=tick.configuration,
    )
    emit(stack, ("Ticks", MetricUnit.Count, 1), ("RefusedTables", MetricUnit.Count, len(tick.refused)))


def note_tick(scheduler: Scheduler, tick: Tick) -> None:
    """Note that a tick was. The metric counts it all the same, so a failure of this is not one of the tick."""
    try:
        tables, unchanged = len(tick.tables), len(tick.unchanged)
        scheduler.ticks.note(tick.due, tables + unchanged, len(tick.refused), unchanged)
    except TidelogError as error:
        logger.warning("tick not noted", reason=error.what)


def report_sight(sight: Sight, stack: str) -> None:
    """Log what a look has shown, and emit it as metrics."""
    for table, seconds in sight.stale:
        logger.error("table stale", table=table, seconds=round(seconds))
    if sight.holder:
        logger.info("horizon held", holder=sight.holder, seconds=round(sight.held))
    emit(
        stack,
        ("StalestTableSeconds", MetricUnit.Seconds, sight.stalest),
        ("HorizonHeldSeconds", MetricUnit.Seconds, sight.held),
    )


def emit(stack: str, *values: tuple[str, MetricUnit, float]) -> None:
    """Emit metrics of a stack, which is their one dimension: an alarm counts only what has exactly its own."""
    metrics = Metrics(service="")
    metrics.add_dimension("stack", stack)
    for name, unit, value in values:
        metrics.add_metric(name, unit, value)
    metrics.flush_metrics()
