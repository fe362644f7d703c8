"""AWS in this process, and a worker between it and the database of a test."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws
from moto.core.common_models import BaseModel
from moto.s3.exceptions import NoSuchUpload
from moto.s3.models import S3Backend

from tests.conftest import Aws, make_lake
from tests.tide import Database, Lake, Tide


@pytest.fixture(scope="package")
def aws() -> Iterator[Aws]:
    """AWS, as moto plays it; where it would fall over an upload that is gone, it answers as S3 does."""
    complete = S3Backend.complete_multipart_upload

    def mended(backend: S3Backend, bucket: str, upload: str, body: Any) -> Any:
        if upload not in backend.get_bucket(bucket).multiparts:
            raise NoSuchUpload(upload_id=upload)
        return complete(backend, bucket, upload, body)

    with mock_aws(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Backend, "complete_multipart_upload", mended)
        patch.setattr(BaseModel, "__new__", lambda cls, *_, **__: object.__new__(cls))  # moto keeps all it ever made
        aws = Aws()
        gc.freeze()  # boto3's descriptions of services need not be gone through again and again
        yield aws


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
