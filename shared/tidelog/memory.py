"""What a tick leaves to the next one: its number, and since when tables are asked for. One small object in the lake."""

from __future__ import annotations

import gzip
import zlib
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from botocore.exceptions import ClientError

from tidelog.errors import UnreadableData
from tidelog.failures import error_code, store_errors
from tidelog.tables import TableName

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

KEY = "ticks/last.json.gz"
VERSION = 1
_ABSENT = ("NoSuchKey", "404", "AccessDenied", "403")
"""Who may not list a bucket is refused an object that is not there."""


class Remembered(msgspec.Struct, frozen=True):
    """What there is to remember of a tick whose messages were sent."""

    version: int
    number: int
    """Counts the ticks."""
    due: str
    """When it was due (ISO 8601)."""
    at: datetime
    """When its messages were sent."""
    asked: dict[str, datetime]
    """The tables that may have changed; since when that is so without a tick at which they were idle."""
    idle: dict[str, str]
    """The others, each with its tally, up to which it was read."""
    calm: dict[str, datetime] = {}
    """Of those that may have changed, when the last tick was at which they were idle."""

    def calm_at(self, table: TableName) -> datetime | None:
        """Return when the last tick was at which a table was idle; None where that is not known."""
        return self.at if str(table) in self.idle else self.calm.get(str(table))

    def fresh(self, table: TableName, read: str | None) -> str | None:
        """Return as of when a table is fresh that was read at some time (ISO 8601): as of the tick if it was idle."""
        if str(table) not in self.idle or (read and datetime.fromisoformat(read) > self.at):
            return read
        return self.at.isoformat(timespec="milliseconds")


class Memory:
    """The memory of the scheduler.

    Args:
        s3: the client.
        bucket: the lake.
    """

    def __init__(self, s3: S3Client, bucket: str) -> None:
        self._s3 = s3
        self.bucket = bucket

    def read(self) -> Remembered | None:
        """Return what is remembered of the last tick; None where there is nothing.

        Raises:
            UnreadableData: it is not what this version of tidelog writes.
            StoreUnreachable: as it says.
        """
        with store_errors("read", KEY):
            try:
                body = self._s3.get_object(Bucket=self.bucket, Key=KEY)["Body"].read()
            except ClientError as error:
                if error_code(error) not in _ABSENT:
                    raise
                return None
        return read_remembered(body)

    def write(self, remembered: Remembered) -> None:
        """Remember a tick in place of the one before.

        Raises:
            StoreUnreachable, AccessDenied: as they say.
        """
        body = gzip.compress(msgspec.json.encode(remembered), mtime=0)
        with store_errors("write", KEY):
            self._s3.put_object(Bucket=self.bucket, Key=KEY, Body=body, ContentType="application/gzip")


def read_remembered(body: bytes) -> Remembered:
    """Read the object.

    Raises:
        UnreadableData: it is not what this version of tidelog writes.
    """
    try:
        found = msgspec.json.decode(gzip.decompress(body), type=Remembered)
    except (OSError, EOFError, zlib.error, msgspec.DecodeError) as error:
        raise _unreadable(f"it is not what a tick remembers: {error}") from error
    if found.version != VERSION or not all(time.tzinfo for time in (found.at, *found.asked.values())):
        raise _unreadable(f"it is of version {found.version}, or has times without a zone")
    return found


def _unreadable(reason: str) -> UnreadableData:
    return UnreadableData("read", KEY, reason, "Every table is asked for, and it is written anew")
