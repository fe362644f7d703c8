"""Everything a run works with, built once per process from the settings."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

import boto3
from botocore.config import Config

from tidelog.credentials import read_credentials
from tidelog.ingesting import Ingestion, Limits
from tidelog.ledger import Ledger
from tidelog.parameters import Parameters
from tidelog.segment import Segments
from tidelog.settings import DatabaseSettings, WorkerSettings
from tidelog.source import Source

_AWS = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 5})


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The parts of tidelog, put together."""

    source: Source
    segments: Segments
    ledger: Ledger
    parameters: Parameters
    ingestion: Ingestion


def client_config() -> Config:
    """Return how AWS is called: a few retries with backoff, and no call that hangs."""
    return _AWS


def build_source(settings: DatabaseSettings) -> Source:
    """Return the database that the settings name.

    Raises:
        TidelogError: its secret can't be read.
    """
    client = boto3.client("secretsmanager", config=_AWS)
    return Source(read_credentials(client, settings.secret), settings.tls)


def build_pipeline(settings: WorkerSettings) -> Pipeline:
    """Build a worker's parts.

    Raises:
        TidelogError: the database's secret can't be read.
    """
    s3 = boto3.client("s3", config=_AWS)
    source = build_source(settings.database)
    segments = Segments(s3, settings.bucket)
    ledger = Ledger(s3, settings.bucket, now=_now, new_id=lambda: uuid.uuid4().hex)
    parameters = Parameters(boto3.client("ssm", config=_AWS), settings.parameters)
    ingestion = Ingestion(
        source=source,
        segments=segments,
        ledger=ledger,
        parameters=parameters,
        limits=Limits(settings.look_back, settings.time_bound_bytes, settings.failover_margin),
        now=_now,
    )
    return Pipeline(source, segments, ledger, parameters, ingestion)


def _now() -> datetime:
    return datetime.now(UTC)
