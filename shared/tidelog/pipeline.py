"""Everything that the functions work with, built once per process from the settings."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.config import Config
from botocore.session import get_session

from tidelog.altering import Tell
from tidelog.configurations import Configurations
from tidelog.credentials import DatabaseSecret, iam_token
from tidelog.deadletters import DeadLetters, Failures
from tidelog.events import SchemaChanged, TimelineStarted
from tidelog.glancing import Glances
from tidelog.idling import Idling
from tidelog.ledger import Ledger
from tidelog.limits import Limits
from tidelog.marks import Marks
from tidelog.memory import Memory
from tidelog.notices import Notices
from tidelog.parameters import Parameters
from tidelog.parts import Parts
from tidelog.queues import WorkQueue
from tidelog.requesting import Requests
from tidelog.segment import Segments
from tidelog.settings import DatabaseSettings, SchedulerSettings, WorkerSettings
from tidelog.source import Source
from tidelog.tables import TableName
from tidelog.ticks import Ticks
from tidelog.watching import Watch, Watching
from tidelog.working import Jobs, Retries, Worker

_AWS = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 5})
_FRESH = 4
"""How often within the time after which a table is stale it is noted that it was read."""


class Clients:
    """The clients of AWS's services, each made when it is first asked for.

    They are botocore's own, as boto3's are: loading boto3 would take half as long again as all the rest.
    """

    def __init__(self) -> None:
        self.session = get_session()
        self._made: dict[str, Any] = {}

    def __getitem__(self, service: str) -> Any:
        """Return the client of a service, such as s3."""
        if service not in self._made:
            self._made[service] = self.session.create_client(service, config=_AWS)
        return self._made[service]


@dataclass(frozen=True, slots=True)
class Scheduler:
    """The parts of a tick, put together."""

    source: Source
    configurations: Configurations
    queue: WorkQueue
    requests: Requests
    watching: Watching
    ticks: Ticks
    idling: Idling


def build_parts(settings: WorkerSettings, clients: Clients | None = None) -> Parts:
    """Build what runs work with."""
    aws = clients or Clients()
    s3, ssm = aws["s3"], aws["ssm"]
    configurations = Configurations(ssm, settings.parameters)
    return Parts(
        source=_build_source(aws, settings.database, configurations),
        configurations=configurations,
        segments=Segments(s3, settings.bucket),
        ledger=Ledger(s3, settings.bucket, now=_now, new_id=lambda: uuid.uuid4().hex),
        parameters=Parameters(ssm, settings.parameters),
        backfill_queue=WorkQueue(aws["sqs"], settings.backfill_queue_url),
        limits=Limits(
            look_back=settings.look_back,
            time_bound_bytes=settings.time_bound_bytes,
            chunk_bytes=settings.chunk_bytes,
            failover_margin=settings.failover_margin,
            fresh=settings.stale_seconds / _FRESH,
        ),
        glances=Glances(),
        now=_now,
    )


def build_worker(settings: WorkerSettings, warn: Tell) -> Worker:
    """Build what works messages off.

    Args:
        settings: what an operator has set.
        warn: notes in the log what a notice tells of outdated tables.
    """
    aws = Clients()
    sqs = aws["sqs"]
    notices = _build_notices(aws, settings.topic, settings.stack, settings.parameters)

    def tell(table: TableName, changed: SchemaChanged | TimelineStarted) -> None:
        warn(table, changed)
        notices.of_outdated(table, changed)

    failures = Failures(aws["s3"], settings.bucket)
    return Worker(
        jobs=Jobs(build_parts(settings, aws), tell),
        queues={
            url.rpartition("/")[2]: WorkQueue(sqs, url)
            for url in (settings.work_queue_url, settings.backfill_queue_url)
        },
        dead_letters=DeadLetters(sqs, settings.dead_letters_url, failures),
        failures=failures,
        notices=notices,
        retries=Retries(settings.retry_seconds, settings.tries),
        now=_now,
        chance=random.random,
    )


def build_scheduler(settings: SchedulerSettings, warn: Callable[[str], object]) -> Scheduler:
    """Build what a tick is made with.

    Args:
        settings: what an operator has set.
        warn: notes in the log why a tick asks for every table.
    """
    aws = Clients()
    ssm, sqs = aws["ssm"], aws["sqs"]
    configurations = Configurations(ssm, settings.parameters)
    source = _build_source(aws, settings.database, configurations)
    parameters = Parameters(ssm, settings.parameters)
    marks = Marks(ssm, settings.parameters)
    watching = Watching(
        source=source,
        parameters=parameters,
        marks=marks,
        notices=_build_notices(aws, settings.topic, settings.stack, settings.parameters),
        watch=Watch(stale_seconds=settings.stale_seconds, horizon_seconds=settings.horizon_seconds),
        now=_now,
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
        now=_now,
        warn=warn,
    )
    queue = WorkQueue(sqs, settings.work_queue_url)
    return Scheduler(source, configurations, queue, requests, watching, Ticks(marks, _now), idling)


def _build_source(aws: Clients, settings: DatabaseSettings, configurations: Configurations) -> Source:
    token = iam_token(aws.session) if settings.authentication == "iam" else None
    return Source(
        DatabaseSecret(aws["secretsmanager"], settings.secret, token),
        settings.tls,
        lock_seconds=settings.lock_seconds,
        settings=configurations.table,
    )


def _build_notices(aws: Clients, topic: str, stack: str, parameters: str) -> Notices:
    return Notices(aws["sns"], topic, stack, Marks(aws["ssm"], parameters), _now)


def _now() -> datetime:
    return datetime.now(UTC)
