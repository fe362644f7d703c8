"""Creating an object in S3 exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from tidelog.failures import error_code, store_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ATTEMPTS = 8
_WAIT_SECONDS = 0.05


def put_new(s3: S3Client, bucket: str, key: str, body: bytes) -> bool:
    """Create an object that was not there; return False where it was.

    Raises:
        StoreUnreachable, AccessDenied: as they say; the object may be there all the same.
    """
    with store_errors("write", key):
        return create(
            lambda: s3.put_object(Bucket=bucket, Key=key, Body=body, IfNoneMatch="*", ContentType="application/json")
        )


def create(write: Callable[[], object]) -> bool:
    """Make a write with `If-None-Match: *`; return False where the object was there.

    S3 answers 409 while another conditional write of the same key is under way: who won is asked again.
    Source: S3 user guide, "How to prevent object overwrites with conditional writes".

    Raises:
        ClientError: S3's, but for those two answers.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            write()
        except ClientError as error:
            if error_code(error) in ("PreconditionFailed", "412"):
                return False
            if error_code(error) != "ConditionalRequestConflict" or attempt == _ATTEMPTS:
                raise
            time.sleep(_WAIT_SECONDS * attempt)
        else:
            return True
    raise AssertionError("the last attempt returns or raises")
