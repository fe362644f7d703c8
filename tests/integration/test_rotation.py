"""A password that is rotated under load, as Secrets Manager does it: nothing is lost, and nobody is told."""

from __future__ import annotations

import itertools
import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from botocore.session import get_session

from tests.conftest import REGION, Aws
from tests.tide import LOCK_SECONDS, SECONDS, Database, Tide, wait_for
from tidelog.credentials import DatabaseSecret, iam_token
from tidelog.errors import AccessDenied, Retryable
from tidelog.ingesting import Ingestion
from tidelog.source import Source
from tidelog.tables import TableName

ROTATIONS, MOST, WORKERS = 4, 40, 3


class Rotation:
    """A secret and the role that it is about; rotates it step by step."""

    def __init__(self, aws: Aws, database: Database, role: str) -> None:
        self._aws = aws
        self._database = database
        self._role = role
        self._content = {"host": "127.0.0.1", "port": database.server.port, "dbname": database.name, "username": role}
        self.secret: str = aws.secrets.create_secret(
            Name=uuid.uuid4().hex, SecretString=json.dumps(self._content | {"password": database.server.password})
        )["ARN"]

    def create(self) -> str:
        """Keep a new password beside the one in force; return it."""
        password, token = uuid.uuid4().hex, uuid.uuid4().hex
        text = json.dumps(self._content | {"password": password})
        arguments: dict[str, Any] = {"ClientRequestToken": token, "VersionStages": ["AWSPENDING"]}
        self._pending = self._aws.secrets.put_secret_value(SecretId=self.secret, SecretString=text, **arguments)
        return password

    def set(self, password: str) -> None:
        """Tell the database, and end the sessions that know the old one only."""
        self._database.run(f"ALTER ROLE {self._role} PASSWORD '{password}'")
        self._database.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{self._role}'")

    def finish(self) -> None:
        """Put the new version in force."""
        versions = self._aws.secrets.describe_secret(SecretId=self.secret)["VersionIdsToStages"]
        [current] = [version for version, stages in versions.items() if "AWSCURRENT" in stages]
        self._aws.secrets.update_secret_version_stage(
            SecretId=self.secret,
            VersionStage="AWSCURRENT",
            MoveToVersionId=self._pending["VersionId"],
            RemoveFromVersionId=current,
        )

    def source(self, **more: Any) -> Source:
        """Return the database as a function sees it."""
        return Source(DatabaseSecret(self._aws.secrets, self.secret), "disable", lock_seconds=LOCK_SECONDS, **more)


@pytest.fixture
def rotation(aws: Aws, database: Database, role: str) -> Rotation:
    """A role that may read all that will be, and its secret."""
    database.run(
        f"GRANT USAGE ON SCHEMA public TO {role}",
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {role}",
    )
    return Rotation(aws, database, role)


def test_a_rotation_under_load_loses_nothing(tide: Tide, rotation: Rotation) -> None:
    """Workers whose sessions end while the database knows the new password and the secret's current version does not.

    No run is refused for good, so there is no dead letter; each row version is in the lake, once.
    """
    tide.run("CREATE TABLE t (id int PRIMARY KEY)")
    over, written = threading.Event(), itertools.count(1)
    done, failed = [0] * WORKERS, [0] * WORKERS

    def write() -> None:
        with tide.database.session() as session:
            while not over.is_set():
                session.run(f"INSERT INTO t VALUES ({next(written)})")

    def work(worker: int) -> None:
        source = rotation.source(settings=tide.configurations.table)
        while not over.is_set():
            try:
                Ingestion(tide.parts(source=source)).ingest(TableName("public", "t"), seconds=SECONDS)
                done[worker] += 1
            except Retryable:
                failed[worker] += 1
        source.close()

    with ThreadPoolExecutor(WORKERS + 1) as pool:
        running = [pool.submit(write), *(pool.submit(work, worker) for worker in range(WORKERS))]

        def go_on() -> None:
            """Wait until every worker has begun and ended a run, or one is refused for good."""
            before = list(done)
            wait_for(
                lambda: (
                    any(each.done() for each in running)
                    or all(now > then + 1 for now, then in zip(done, before, strict=True))
                )
            )

        try:
            for number in range(MOST):
                if number >= ROTATIONS and any(failed):
                    break
                rotation.set(rotation.create())
                go_on()
                rotation.finish()
                go_on()
        finally:
            over.set()
        for each in running:
            each.result()
    tide.ingest()
    assert any(failed), "no session was ended in the middle of a run"
    assert tide.values("id") == list(range(1, next(written)))


def test_of_a_rotation_every_step_is_survived(rotation: Rotation) -> None:
    """By a function that has begun before it, and by one that begins in the middle of it; twice in a row."""
    lived = rotation.source()
    lived.relations()

    def both() -> None:
        begun = rotation.source()
        for source in (lived, begun):
            source.close()
            source.relations()
        begun.close()

    for _ in range(2):
        password = rotation.create()
        both()
        rotation.set(password)
        both()
        rotation.finish()
        both()
    for _ in range(2):  # It sleeps through one, and wakes in the middle of the next.
        rotation.finish()
        rotation.set(rotation.create())
    lived.close()
    lived.relations()
    lived.close()


def test_a_password_that_nobody_knows_is_refused_for_good(rotation: Rotation) -> None:
    """Neither the current version nor the pending one is right; later it is."""
    rotation.create()
    rotation.set("another")
    source = rotation.source()
    for _ in range(2):
        with pytest.raises(AccessDenied, match="password authentication failed"):
            source.relations()
    rotation.set(rotation.create())
    source.relations()
    source.close()


def test_a_token_of_iam_is_what_aws_makes_of_it(rotation: Rotation, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte but for the moment and what is signed with it; the secret needs no password."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    content = {"host": "db.example", "port": 5433, "username": "reader of+all"}
    aws.secrets.put_secret_value(SecretId=rotation.secret, SecretString=json.dumps(content))
    found = DatabaseSecret(aws.secrets, rotation.secret, iam_token(get_session()))()
    rds = boto3.Session(region_name=REGION).client("rds")
    expected = rds.generate_db_auth_token("db.example", 5433, "reader of+all")
    varying = "&X-Amz-Date="
    assert found.password.split(varying)[0] == expected.split(varying)[0]
    assert [part.split("=")[0] for part in found.password.split("&")] == [
        part.split("=")[0] for part in expected.split("&")
    ]
    assert found.passing


def test_a_token_of_iam_is_made_for_each_connection(database: Database, role: str, aws: Aws) -> None:
    """It is good for minutes; one that was let in before is never tried again."""
    made: list[str] = []

    def token(_: object) -> str:
        made.append(uuid.uuid4().hex)
        database.run(f"ALTER ROLE {role} PASSWORD '{made[-1]}'")  # Only the newest is right.
        return made[-1]

    content = {"host": "127.0.0.1", "port": database.server.port, "dbname": database.name, "username": role}
    secret: str = aws.secrets.create_secret(Name=uuid.uuid4().hex, SecretString=json.dumps(content))["ARN"]
    source = Source(DatabaseSecret(aws.secrets, secret, token), "disable", lock_seconds=LOCK_SECONDS)
    for connections in (1, 2, 3):
        source.relations()
        source.relations()
        source.close()
        assert len(made) == connections
