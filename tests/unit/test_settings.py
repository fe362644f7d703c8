"""The environment of the functions, read once and named whole where something is missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import pytest

from tidelog.errors import InvalidSetting
from tidelog.selection import Selection
from tidelog.settings import DatabaseSettings, read_scheduler_settings, read_worker_settings

SCHEDULER = {
    "TIDELOG_STACK": "tidelog-dev",
    "TIDELOG_DATABASE_SECRET": "arn:secret",
    "TIDELOG_DATABASE_TLS": "verify-full",
    "TIDELOG_DATABASE_AUTHENTICATION": "iam",
    "TIDELOG_LOCK_SECONDS": "10",
    "TIDELOG_PARAMETERS": "/tidelog/dev/",
    "TIDELOG_TOPIC": "arn:topic",
    "TIDELOG_STALE_SECONDS": "1800",
    "TIDELOG_HORIZON_SECONDS": "3600",
    "TIDELOG_WORK_QUEUE_URL": "https://queue",
    "TIDELOG_BACKFILL_QUEUE_URL": "https://queue/backfill.fifo",
    "TIDELOG_CHUNK_MEGABYTES": "512",
    "TIDELOG_BUCKET": "lake",
    "TIDELOG_CERTAIN_LOOK_TICKS": "12",
    "TIDELOG_INCLUDE": "public.*",
    "TIDELOG_EXCLUDE": "*.audit",
}
WORKER = {
    "TIDELOG_STACK": "tidelog-dev",
    "TIDELOG_DATABASE_SECRET": "arn:secret",
    "TIDELOG_DATABASE_TLS": "require",
    "TIDELOG_DATABASE_AUTHENTICATION": "password",
    "TIDELOG_BUCKET": "lake",
    "TIDELOG_PARAMETERS": "/tidelog/dev/",
    "TIDELOG_LOOK_BACK_SECONDS": "900",
    "TIDELOG_TIME_BOUND_MEGABYTES": "0.5",
    "TIDELOG_FAILOVER_MARGIN_SECONDS": "3600",
    "TIDELOG_LOCK_SECONDS": "2.5",
    "TIDELOG_TOPIC": "arn:topic",
    "TIDELOG_STALE_SECONDS": "1800",
    "TIDELOG_WORK_QUEUE_URL": "https://queue/work.fifo",
    "TIDELOG_BACKFILL_QUEUE_URL": "https://queue/backfill.fifo",
    "TIDELOG_DEAD_LETTERS_URL": "https://queue/dead-letters.fifo",
    "TIDELOG_RETRY_SECONDS": "60",
    "TIDELOG_TRIES": "5",
    "TIDELOG_CHUNK_MEGABYTES": "0.25",
}
Read = Callable[[Mapping[str, str]], object]


def test_a_scheduler_is_told_its_queue_and_its_tables() -> None:
    """Lists are comma-separated patterns."""
    settings = read_scheduler_settings(SCHEDULER)
    assert (settings.stack, settings.work_queue_url) == ("tidelog-dev", "https://queue")
    assert settings.database == DatabaseSettings("arn:secret", "verify-full", "iam", 10)
    assert (settings.stale_seconds, settings.horizon_seconds) == (1800, 3600)
    assert (settings.bucket, settings.certain_look_ticks) == ("lake", 12)
    assert settings.selection == Selection(("public.*",), ("*.audit",))


def test_a_worker_is_told_its_lake_and_its_limits() -> None:
    """Megabytes become bytes; the prefix of the parameters has no slash at its end."""
    settings = read_worker_settings(WORKER)
    assert (settings.bucket, settings.parameters) == ("lake", "/tidelog/dev")
    assert (settings.look_back, settings.time_bound_bytes, settings.failover_margin) == (900, 2**19, 3600)
    assert (settings.retry_seconds, settings.tries, settings.database.lock_seconds) == (60, 5, 2.5)


@pytest.mark.parametrize(("read", "names"), [(read_scheduler_settings, SCHEDULER), (read_worker_settings, WORKER)])
def test_all_missing_variables_are_named_at_once(read: Read, names: dict[str, str]) -> None:
    """Not one per deployment."""
    with pytest.raises(InvalidSetting) as missing:
        read({"PATH": "/bin"})
    assert set(re.findall(r"TIDELOG_\w+", str(missing.value))) == set(names)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TIDELOG_DATABASE_TLS", "prefer", "must be one of verify-full, require, disable"),
        ("TIDELOG_DATABASE_AUTHENTICATION", "trust", "must be one of password, iam"),
        ("TIDELOG_LOOK_BACK_SECONDS", "soon", "must be a number, 0 or greater"),
        ("TIDELOG_LOOK_BACK_SECONDS", "nan", "must be a number, 0 or greater"),
        ("TIDELOG_TIME_BOUND_MEGABYTES", "inf", "must be a number, 0 or greater"),
        ("TIDELOG_FAILOVER_MARGIN_SECONDS", "-1", "must be a number, 0 or greater"),
        ("TIDELOG_FAILOVER_MARGIN_SECONDS", "", "must be a number, 0 or greater"),
    ],
)
def test_an_unusable_value_is_named_with_its_variable(name: str, value: str, words: str) -> None:
    """And what would be usable."""
    with pytest.raises(InvalidSetting) as refused:
        read_worker_settings(WORKER | {name: value})
    assert f"{name}={value!r} {words}" in str(refused.value)


def test_a_token_is_told_to_a_verified_server_alone() -> None:
    """RDS asks for it in plain text within TLS."""
    with pytest.raises(InvalidSetting, match="TIDELOG_DATABASE_TLS='require' must be verify-full with iam"):
        read_worker_settings(WORKER | {"TIDELOG_DATABASE_AUTHENTICATION": "iam"})


def test_a_list_with_an_open_quote_is_refused() -> None:
    """Before the first tick takes the wrong tables."""
    with pytest.raises(InvalidSetting, match="quote that is not closed"):
        read_scheduler_settings(SCHEDULER | {"TIDELOG_INCLUDE": 'public."orders'})
