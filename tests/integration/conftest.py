"""AWS in this process, and a worker between it and the database of a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto import mock_aws

from tests.conftest import Aws, make_lake
from tests.tide import Database, Lake, Tide


@pytest.fixture(scope="package")
def aws() -> Iterator[Aws]:
    """AWS, as moto plays it."""
    with mock_aws():
        yield Aws()


@pytest.fixture
def lake(aws: Aws) -> Lake:
    """An empty lake."""
    return make_lake(aws.s3, aws.ssm)


@pytest.fixture
def tide(database: Database, lake: Lake) -> Iterator[Tide]:
    """A worker between a fresh database and an empty lake; in the end every table's ledger adds up."""
    tide = Tide(database, lake)
    yield tide
    for table in tide.tables():
        tide.check(table)
    assert lake.uploads() == []
