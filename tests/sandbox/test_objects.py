"""Conditional writes: of any number of writers exactly one wins."""

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from botocore.exceptions import ClientError

from tidelog_sandbox.cloud import Cloud
from tidelog_sandbox.objects import KeyLocks

WRITERS = 20


def raced(write: Callable[[int], object]) -> tuple[list[int], Counter[str]]:
    """Let twenty threads write at once; the numbers of those that succeeded, and the error codes of the others."""
    barrier, winners, losers = threading.Barrier(WRITERS), list[int](), Counter[str]()

    def attempt(number: int) -> None:
        barrier.wait()
        try:
            write(number)
        except ClientError as error:
            losers[error.response["Error"]["Code"]] += 1
        else:
            winners.append(number)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return winners, losers


@pytest.mark.parametrize("repetition", range(5))
def test_one_of_twenty_conditional_puts_wins(cloud: Cloud, bucket: str, repetition: int) -> None:
    """The others get 412, and the object is the winner's."""
    s3 = cloud.client("s3")
    winners, losers = raced(lambda n: s3.put_object(Bucket=bucket, Key="k", Body=b"%04d" % n * 25_000, IfNoneMatch="*"))
    assert len(winners) == 1
    assert losers == {"PreconditionFailed": WRITERS - 1}
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read(4) == b"%04d" % winners[0]


@pytest.mark.parametrize("repetition", range(3))
def test_one_of_twenty_conditional_completions_of_uploads_wins(cloud: Cloud, bucket: str, repetition: int) -> None:
    """The others get 412, and the object is the winner's."""
    s3 = cloud.client("s3")
    uploads = []
    for number in range(WRITERS):
        upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
        body = b"%04d" % number * 250_000
        part = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=body)["ETag"]
        uploads.append((upload, {"Parts": [{"PartNumber": 1, "ETag": part}]}))

    def complete(number: int) -> None:
        upload, parts = uploads[number]
        s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload=parts, IfNoneMatch="*")

    winners, losers = raced(complete)
    assert len(winners) == 1
    assert losers == {"PreconditionFailed": WRITERS - 1}
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read(4) == b"%04d" % winners[0]


def test_an_upload_that_is_gone_is_said_to_be_gone(cloud: Cloud, bucket: str) -> None:
    """Completing an aborted upload, or adding to it, is NoSuchUpload."""
    s3 = cloud.client("s3")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part}]}
    with pytest.raises(ClientError, match="NoSuchUpload"):
        s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload=parts)
    with pytest.raises(ClientError, match="NoSuchUpload"):
        s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=2, Body=b"x")


def test_a_completion_may_be_repeated(cloud: Cloud, bucket: str) -> None:
    """Completing an upload that is an object already is a success, also with If-None-Match."""
    s3 = cloud.client("s3")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    complete = {"UploadId": upload, "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": part}]}}
    first = s3.complete_multipart_upload(Bucket=bucket, Key="k", IfNoneMatch="*", **complete)
    second = s3.complete_multipart_upload(Bucket=bucket, Key="k", IfNoneMatch="*", **complete)
    assert first["ETag"] == second["ETag"]


@pytest.fixture(scope="module")
def quarrelsome() -> Iterator[Cloud]:
    """A cloud that answers 409."""
    with Cloud(conflicts=True) as cloud:
        yield cloud


def test_writers_that_meet_may_get_a_conflict(quarrelsome: Cloud) -> None:
    """With conflicts switched on a loser gets 409 or 412, and one writer wins all the same."""
    s3 = quarrelsome.client("s3")
    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": quarrelsome.region})
    seen = Counter[str]()
    for key in ("a", "b"):
        winners, losers = raced(lambda _, key=key: s3.put_object(Bucket=bucket, Key=key, Body=b"x", IfNoneMatch="*"))  # type: ignore[misc]  # mypy has no type for a default
        assert len(winners) == 1
        seen += losers
    assert seen.keys() <= {"PreconditionFailed", "ConditionalRequestConflict"}
    assert seen["ConditionalRequestConflict"]


def test_a_lock_is_forgotten_when_nobody_holds_it() -> None:
    """Locks of keys do not pile up."""
    locks = KeyLocks()
    with locks.held("a") as contended:
        assert not contended
        with locks.held("b"):
            pass
    assert not locks._locks
