"""What the tests stand on: a PostgreSQL server, and a database of their own for those that need one.

Under pytest-xdist each process has its server: a transaction is seen in all databases of one, so tests that run at the
same time would hold back each other's horizon.
"""

from __future__ import annotations

import gc
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import boto3
import hypothesis
import pg8000.native
import pytest

from tests.tide import Database, Lake, Server, connect
from tidelog_sandbox.postgres import Postgres

REGION = "eu-west-2"
SETTINGS = {
    "fsync": "off",  # nothing of it has to survive the machine
    "max_connections": "200",
    "max_prepared_transactions": "20",
    "wal_writer_delay": "10ms",  # every run waits for one round of it
}


def pytest_collection_finish() -> None:
    """Exempt from garbage collection what is loaded by now, which is much, and stays."""
    gc.freeze()


hypothesis.settings.register_profile("tidelog", deadline=None, max_examples=100)
hypothesis.settings.load_profile("tidelog")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server of this process."""
    with Postgres(settings=SETTINGS) as postgres:
        yield Server(postgres.port, postgres.password)


@pytest.fixture(scope="session")
def admin(server: Server) -> Iterator[pg8000.native.Connection]:
    """A connection that creates and drops databases."""
    connection = connect(server.credentials("postgres"))
    yield connection
    connection.close()


CreateDatabase = Callable[..., AbstractContextManager[Database]]


@pytest.fixture(scope="session")
def create_database(server: Server, admin: pg8000.native.Connection) -> CreateDatabase:
    """Return what creates a database and drops it at the end of a block; `options` are those of CREATE DATABASE."""

    @contextmanager
    def create(options: str = "") -> Iterator[Database]:
        name = f"test_{uuid.uuid4().hex}"
        admin.run(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy {options}")
        database = Database(server, name)
        try:
            yield database
        finally:
            database.close()
            admin.run(f"DROP DATABASE {name} WITH (FORCE)")

    return create


@pytest.fixture
def database(create_database: CreateDatabase) -> Iterator[Database]:
    """A fresh database."""
    with create_database() as database:
        yield database


@pytest.fixture
def role(database: Database, admin: pg8000.native.Connection) -> Iterator[str]:
    """A role that may log in and has no privilege yet."""
    name = f"reader_{uuid.uuid4().hex}"
    admin.run(f"CREATE ROLE {name} LOGIN PASSWORD '{database.server.password}'")
    yield name
    database.run(f"DROP OWNED BY {name}")
    admin.run(f"DROP ROLE {name}")


@pytest.fixture(scope="module")
def server_role(admin: pg8000.native.Connection, server: Server) -> Iterator[str]:
    """A role of the whole server that may log in and has no privilege yet. Who grants it something takes it back."""
    name = f"reader_{uuid.uuid4().hex}"
    admin.run(f"CREATE ROLE {name} LOGIN PASSWORD '{server.password}'")
    yield name
    admin.run(f"DROP ROLE {name}")


class Aws:
    """Clients of the AWS in this process."""

    def __init__(self) -> None:
        session = boto3.Session(region_name=REGION)
        self.s3 = session.client("s3")
        self.ssm = session.client("ssm")
        self.sqs = session.client("sqs")
        self.secrets = session.client("secretsmanager")


def make_lake(s3: Any, ssm: Any) -> Lake:
    """Create a bucket."""
    bucket = f"lake-{uuid.uuid4().hex}"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    return Lake(s3, ssm, bucket, f"/tidelog/{bucket}")
