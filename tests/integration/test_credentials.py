"""The database's secret, in the format of RDS."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from tests.conftest import Aws
from tests.faults import Process, Step, refusal
from tests.tide import LOCK_SECONDS, Database
from tidelog.credentials import Credentials, read_credentials
from tidelog.errors import AccessDenied, DatabaseUnreachable, InvalidSetting, StoreUnreachable
from tidelog.source import Source

RDS = {
    "engine": "postgres",
    "host": "db.example",
    "port": 5433,
    "username": "reader",
    "password": "p4ss",
    "dbname": "shop",
}


def stored(aws: Aws, text: str) -> str:
    """Store a secret; return its ARN."""
    arn: str = aws.secrets.create_secret(Name=uuid.uuid4().hex, SecretString=text)["ARN"]
    return arn


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Credentials("db.example", "reader", "p4ss", "shop", 5433)),
        ({"port": "5433"}, Credentials("db.example", "reader", "p4ss", "shop", 5433)),
        ({"port": ..., "dbname": ...}, Credentials("db.example", "reader", "p4ss", "postgres", 5432)),
        ({"dbInstanceIdentifier": "x", "masterarn": "y"}, Credentials("db.example", "reader", "p4ss", "shop", 5433)),
    ],
)
def test_a_secret_of_rds_is_understood(aws: Aws, changes: dict[str, Any], expected: Credentials) -> None:
    """As RDS writes it, as a person does, and with the defaults left out."""
    secret = {name: value for name, value in (RDS | changes).items() if value is not ...}
    assert read_credentials(aws.secrets, stored(aws, json.dumps(secret))) == expected


@pytest.mark.parametrize(
    "text",
    [
        "p4ss",
        '"p4ss"',
        '{"password": "p4ss"}',
        json.dumps(RDS | {"host": ["p4ss"]}),
        json.dumps(RDS | {"port": "p4ss"}),
    ],
)
def test_a_secret_of_another_format_is_an_error_that_does_not_tell_it(aws: Aws, text: str) -> None:
    """It says what a secret has to look like."""
    with pytest.raises(
        InvalidSetting, match="Store a JSON object with host, port, dbname, username and password"
    ) as refused:
        read_credentials(aws.secrets, stored(aws, text))
    assert "p4ss" not in f"{refused.value} {refused.value.__cause__}"


def test_a_secret_that_cannot_be_read_is_an_error(aws: Aws) -> None:
    """Permanent where it is not there, retryable where AWS is busy."""
    with pytest.raises(AccessDenied, match="ResourceNotFoundException"):
        read_credentials(aws.secrets, "no-such-secret")
    process = Process()
    process.at("before", Step("get_secret_value"), refusal("ThrottlingException"))
    with pytest.raises(StoreUnreachable):
        read_credentials(process.client(aws.secrets), "any")


def test_a_password_is_never_shown() -> None:
    """Neither in a log nor in a traceback's locals."""
    credentials = Credentials("db.example", "reader", "p4ss", "shop", 5433)
    assert "p4ss" not in f"{credentials} {credentials!r} {[credentials]}"
    assert "reader@db.example:5433/shop" in str(credentials)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"password": "wrong"}, AccessDenied, "password authentication failed"),
        ({"username": "nobody_such"}, AccessDenied, "password authentication failed"),
        ({"dbname": "nosuch"}, AccessDenied, "Check the name of the database"),
        ({"port": 1}, DatabaseUnreachable, "Check that the server is up"),
        ({"host": "no.such.host.invalid"}, DatabaseUnreachable, "Check that the server is up"),
    ],
)
def test_a_database_that_cannot_be_reached_is_a_readable_error(
    database: Database, change: dict[str, Any], kind: type[Exception], words: str
) -> None:
    """Which says whose fault it may be, and never the password."""
    here = database.server.credentials(database.name)
    fields = {name: getattr(here, name) for name in here.__struct_fields__} | change
    with pytest.raises(kind, match=words) as refused:
        Source(lambda: Credentials(**fields), "disable", lock_seconds=LOCK_SECONDS).relations()
    assert fields["password"] not in str(refused.value)
