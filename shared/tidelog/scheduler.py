"""Everything that the scheduler works with, built once per process from the settings."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import msgspec

from tidelog.clients import Clients
from tidelog.configurations import Configurations
from tidelog.idling import Idling
from tidelog.marks import Marks
from tidelog.memory import Memory
from tidelog.parameters import Parameters
from tidelog.pipeline import build_notices, build_source, utc_now
from tidelog.queues import WorkQueue
from tidelog.requesting import Requests
from tidelog.settings import SchedulerSettings
from tidelog.source import Source
from tidelog.ticks import Ticks
from tidelog.watching import Watch, Watching


class Scheduler(msgspec.Struct, frozen=True):
    """The parts of a tick, put together."""

    source: Source
    configurations: Configurations
    queue: WorkQueue
    requests: Requests
    watching: Watching
    ticks: Ticks
    idling: Idling


def build_scheduler(settings: SchedulerSettings, warn: Callable[[str], object]) -> Scheduler:
    """Build what a tick is made with.

    Args:
        settings: what an operator has set.
        warn: notes in the log why a tick asks for every table.
    """
    aws = Clients()
    ssm, sqs = aws["ssm"], aws["sqs"]
    configurations = Configurations(ssm, settings.parameters)
    source = build_source(aws, settings.database, configurations)
    parameters = Parameters(ssm, settings.parameters)
    marks = Marks(ssm, settings.parameters)
    watching = Watching(
        source=source,
        parameters=parameters,
        marks=marks,
        notices=build_notices(aws, settings.topic, settings.stack, settings.parameters),
        watch=Watch(stale_seconds=settings.stale_seconds, horizon_seconds=settings.horizon_seconds),
        now=utc_now,
    )
    requests = Requests(
        source=source,
        queue=WorkQueue(sqs, settings.backfill_queue_url),
        parameters=parameters,
        chunk_bytes=settings.chunk_bytes,
        new_id=lambda: uuid.uuid4().hex,
    )
    idling = Idling(
        source=source,
        parameters=parameters,
        memory=Memory(aws["s3"], settings.bucket),
        looks=settings.certain_look_ticks,
        now=utc_now,
        warn=warn,
    )
    queue = WorkQueue(sqs, settings.work_queue_url)
    return Scheduler(source, configurations, queue, requests, watching, Ticks(marks, utc_now), idling)
