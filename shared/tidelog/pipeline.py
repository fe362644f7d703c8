"""Everything that the worker works with, built once per process from the settings."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime

from tidelog.altering import Tell
from tidelog.clients import Clients
from tidelog.configurations import Configurations
from tidelog.credentials import DatabaseSecret, iam_token
from tidelog.deadletters import DeadLetters, Failures
from tidelog.events import SchemaChanged, TimelineStarted
from tidelog.glancing import Glances
from tidelog.ledger import Ledger
from tidelog.limits import Limits
from tidelog.marks import Marks
from tidelog.notices import Notices
from tidelog.parameters import Parameters
from tidelog.parts import Parts
from tidelog.queues import WorkQueue
from tidelog.segment import Segments
from tidelog.settings import DatabaseSettings, WorkerSettings
from tidelog.source import Source
from tidelog.tables import TableName
from tidelog.working import Jobs, Retries, Worker

_FRESH = 4
"""How often within the time after which a table is stale it is noted that it was read."""


def build_parts(settings: WorkerSettings, clients: Clients | None = None) -> Parts:
    """Build what runs work with."""
    aws = clients or Clients()
    s3, ssm = aws["s3"], aws["ssm"]
    configurations = Configurations(ssm, settings.parameters)
    return Parts(
        source=build_source(aws, settings.database, configurations),
        configurations=configurations,
        segments=Segments(s3, settings.bucket),
        ledger=Ledger(s3, settings.bucket, now=utc_now, new_id=lambda: uuid.uuid4().hex),
        parameters=Parameters(ssm, settings.parameters),
        backfill_queue=WorkQueue(aws.later("sqs"), settings.backfill_queue_url),
        limits=Limits(
            look_back=settings.look_back,
            time_bound_bytes=settings.time_bound_bytes,
            chunk_bytes=settings.chunk_bytes,
            failover_margin=settings.failover_margin,
            fresh=settings.stale_seconds / _FRESH,
        ),
        glances=Glances(),
        now=utc_now,
    )


def build_worker(settings: WorkerSettings, warn: Tell) -> Worker:
    """Build what works messages off.

    Args:
        settings: what an operator has set.
        warn: notes in the log what a notice tells of outdated tables.
    """
    aws = Clients()
    sqs = aws.later("sqs")
    notices = build_notices(aws, settings.topic, settings.stack, settings.parameters)

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
        now=utc_now,
        chance=random.random,
    )


def build_source(aws: Clients, settings: DatabaseSettings, configurations: Configurations) -> Source:
    """Build what reads the database."""
    token = iam_token(aws.session) if settings.authentication == "iam" else None
    return Source(
        DatabaseSecret(aws["secretsmanager"], settings.secret, token),
        settings.tls,
        lock_seconds=settings.lock_seconds,
        settings=configurations.table,
    )


def build_notices(aws: Clients, topic: str, stack: str, parameters: str) -> Notices:
    """Build what tells the administrators."""
    return Notices(aws.later("sns"), topic, stack, Marks(aws["ssm"], parameters), utc_now)


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)
