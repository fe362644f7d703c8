"""What the functions are told by their environment: the only module that reads it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tidelog.errors import InvalidSetting
from tidelog.selection import Selection

TLS = ("verify-full", "require", "disable")
AUTHENTICATION = ("password", "iam")
_SHARED = (
    "STACK",
    "DATABASE_SECRET",
    "DATABASE_TLS",
    "DATABASE_AUTHENTICATION",
    "LOCK_SECONDS",
    "PARAMETERS",
    "TOPIC",
    "STALE_SECONDS",
    "CHUNK_MEGABYTES",
)


class DatabaseSettings(msgspec.Struct, frozen=True):
    """How the database is reached."""

    secret: str
    """ARN or name of the Secrets Manager secret."""
    tls: str
    """One of `TLS`."""
    authentication: str
    """One of `AUTHENTICATION`."""
    lock_seconds: float
    """How long a lock on a table is waited for."""


class SchedulerSettings(msgspec.Struct, frozen=True):
    """What the scheduler is told."""

    stack: str
    database: DatabaseSettings
    work_queue_url: str
    selection: Selection
    parameters: str
    """What the names of the parameters begin with, such as /tidelog/prod."""
    topic: str
    """ARN of the topic that tells the administrators."""
    stale_seconds: float
    """After which a table that was not read is told of."""
    horizon_seconds: float
    """After which a transaction that holds the horizon is told of."""
    backfill_queue_url: str
    chunk_bytes: int
    """More than this is read in chunks."""
    bucket: str
    certain_look_ticks: int
    """After so many ticks a table is asked for although nothing has changed in it; 1 for each tick."""


class WorkerSettings(msgspec.Struct, frozen=True):
    """What the worker is told. Durations are seconds, sizes bytes."""

    stack: str
    database: DatabaseSettings
    bucket: str
    parameters: str
    """What the names of the parameters begin with, such as /tidelog/prod."""
    look_back: float
    time_bound_bytes: int
    chunk_bytes: int
    """More than this is read in chunks."""
    failover_margin: float
    stale_seconds: float
    """After which a table that was not read is told of."""
    work_queue_url: str
    backfill_queue_url: str
    dead_letters_url: str
    topic: str
    """ARN of the topic that tells the administrators."""
    retry_seconds: float
    """How long a message is hidden after its first failure."""
    tries: int


def read_scheduler_settings(environment: Mapping[str, str]) -> SchedulerSettings:
    """Read the scheduler's environment.

    Raises:
        InvalidSetting: naming every missing variable, or the first unusable one.
    """
    value = _values(
        environment,
        *(*_SHARED, "WORK_QUEUE_URL", "BACKFILL_QUEUE_URL", "INCLUDE", "EXCLUDE", "HORIZON_SECONDS"),
        *("BUCKET", "CERTAIN_LOOK_TICKS"),
    )
    return SchedulerSettings(
        stack=value["STACK"],
        database=_database(value),
        work_queue_url=value["WORK_QUEUE_URL"],
        selection=Selection.parse(value["INCLUDE"], value["EXCLUDE"]),
        parameters=value["PARAMETERS"].rstrip("/"),
        topic=value["TOPIC"],
        stale_seconds=_number(value, "STALE_SECONDS"),
        horizon_seconds=_number(value, "HORIZON_SECONDS"),
        backfill_queue_url=value["BACKFILL_QUEUE_URL"],
        chunk_bytes=_chunk_bytes(value),
        bucket=value["BUCKET"],
        certain_look_ticks=int(_number(value, "CERTAIN_LOOK_TICKS")),
    )


def read_worker_settings(environment: Mapping[str, str]) -> WorkerSettings:
    """Read the worker's environment.

    Raises:
        InvalidSetting: naming every missing variable, or the first unusable one.
    """
    value = _values(
        environment,
        *(*_SHARED, "BUCKET", "LOOK_BACK_SECONDS", "TIME_BOUND_MEGABYTES", "FAILOVER_MARGIN_SECONDS"),
        *("WORK_QUEUE_URL", "BACKFILL_QUEUE_URL", "DEAD_LETTERS_URL", "RETRY_SECONDS", "TRIES"),
    )
    return WorkerSettings(
        stack=value["STACK"],
        database=_database(value),
        bucket=value["BUCKET"],
        parameters=value["PARAMETERS"].rstrip("/"),
        look_back=_number(value, "LOOK_BACK_SECONDS"),
        time_bound_bytes=_bytes(value, "TIME_BOUND_MEGABYTES"),
        chunk_bytes=_chunk_bytes(value),
        failover_margin=_number(value, "FAILOVER_MARGIN_SECONDS"),
        stale_seconds=_number(value, "STALE_SECONDS"),
        work_queue_url=value["WORK_QUEUE_URL"],
        backfill_queue_url=value["BACKFILL_QUEUE_URL"],
        dead_letters_url=value["DEAD_LETTERS_URL"],
        topic=value["TOPIC"],
        retry_seconds=_number(value, "RETRY_SECONDS"),
        tries=int(_number(value, "TRIES")),
    )


def _database(value: Mapping[str, str]) -> DatabaseSettings:
    if value["DATABASE_TLS"] not in TLS:
        raise _unusable("DATABASE_TLS", value["DATABASE_TLS"], f"must be one of {', '.join(TLS)}")
    if value["DATABASE_AUTHENTICATION"] not in AUTHENTICATION:
        allowed = ", ".join(AUTHENTICATION)
        raise _unusable("DATABASE_AUTHENTICATION", value["DATABASE_AUTHENTICATION"], f"must be one of {allowed}")
    if value["DATABASE_AUTHENTICATION"] == "iam" and value["DATABASE_TLS"] != "verify-full":
        raise _unusable("DATABASE_TLS", value["DATABASE_TLS"], "must be verify-full with iam: RDS is told the token")
    return DatabaseSettings(
        secret=value["DATABASE_SECRET"],
        tls=value["DATABASE_TLS"],
        authentication=value["DATABASE_AUTHENTICATION"],
        lock_seconds=_number(value, "LOCK_SECONDS"),
    )


def _values(environment: Mapping[str, str], *names: str) -> dict[str, str]:
    missing = [f"TIDELOG_{name}" for name in names if f"TIDELOG_{name}" not in environment]
    if missing:
        raise InvalidSetting("read", "the environment", f"{', '.join(missing)} missing", "Deploy the template again")
    return {name: environment[f"TIDELOG_{name}"] for name in names}


def _number(value: Mapping[str, str], name: str) -> float:
    try:
        number = float(value[name])
    except ValueError:
        number = -1
    if not 0 <= number < float("inf"):
        raise _unusable(name, value[name], "must be a number, 0 or greater")
    return number


def _bytes(value: Mapping[str, str], name: str) -> int:
    return int(_number(value, name) * 2**20)


def _chunk_bytes(value: Mapping[str, str]) -> int:
    if size := _bytes(value, "CHUNK_MEGABYTES"):
        return size
    raise _unusable("CHUNK_MEGABYTES", value["CHUNK_MEGABYTES"], "must be greater than 0")


def _unusable(name: str, text: str, reason: str) -> InvalidSetting:
    return InvalidSetting("read", "the environment", f"TIDELOG_{name}={text!r} {reason}", "Mend the stack's parameter")
