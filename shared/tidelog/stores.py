"""Where a lake can be read from: a bucket, or a folder that holds the same objects as files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol, cast

from botocore.exceptions import ClientError

from tidelog.errors import InvalidSetting
from tidelog.failures import error_code, store_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class NoSuchObjectError(KeyError):
    """There is no object of that key."""


class Listed(NamedTuple):
    """An object as a listing shows it."""

    key: str
    size: int
    """In bytes, as stored."""
    written: datetime
    """With a zone; when it was last written, in whole seconds or finer."""


class Store(Protocol):
    """Objects to read. Prefixes end with a slash."""

    def keys(self, prefix: str, after: str = "") -> Iterator[Listed]:
        """Yield the objects under a prefix in the order of their keys' bytes, those behind a key only."""

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield the names right under a prefix that objects lie under, in any order."""

    def holds(self, key: str) -> bool:
        """Say whether an object is there."""

    def read(self, key: str) -> bytes:
        """Return an object.

        Raises:
            NoSuchObjectError: it is not there.
        """

    def open(self, key: str) -> BinaryIO:
        """Return an object as a stream of bytes.

        Raises:
            NoSuchObjectError: it is not there.
        """


class Bucket:
    """A bucket of S3, or what lies under a prefix in it.

    What fails raises StoreUnreachable or AccessDenied, but for a stream: that raises what botocore does.
    """

    def __init__(self, s3: S3Client, name: str, prefix: str = "") -> None:
        self._s3 = s3
        self._name = name
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def __str__(self) -> str:
        return f"s3://{self._name}/{self._prefix}"

    def keys(self, prefix: str, after: str = "") -> Iterator[Listed]:
        """See `Store`."""
        start = self._prefix + after if after else ""
        with store_errors("list", f"{self}{prefix}"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=self._name, Prefix=self._prefix + prefix, StartAfter=start
            )
            for page in pages:
                for found in page.get("Contents", []):
                    yield Listed(found["Key"].removeprefix(self._prefix), found["Size"], found["LastModified"])

    def folders(self, prefix: str) -> Iterator[str]:
        """See `Store`."""
        whole = self._prefix + prefix
        with store_errors("list", f"{self}{prefix}"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=whole, Delimiter="/")
            for page in pages:
                for found in page.get("CommonPrefixes", []):
                    yield found["Prefix"].removeprefix(whole).rstrip("/")

    def holds(self, key: str) -> bool:
        """See `Store`."""
        with store_errors("look up", f"{self}{key}"):
            try:
                self._s3.head_object(Bucket=self._name, Key=self._prefix + key)
            except ClientError as error:
                if error_code(error) not in ("NoSuchKey", "404"):
                    raise
                return False
        return True

    def read(self, key: str) -> bytes:
        """See `Store`."""
        with store_errors("read", f"{self}{key}"):
            return self.open(key).read()

    def open(self, key: str) -> BinaryIO:
        """See `Store`."""
        with store_errors("read", f"{self}{key}"):
            try:
                body = self._s3.get_object(Bucket=self._name, Key=self._prefix + key)["Body"]
            except ClientError as error:
                if error_code(error) not in ("NoSuchKey", "404"):
                    raise
                raise NoSuchObjectError(key) from error
        return cast("BinaryIO", body)


class Folder:
    """A folder of files, such as `tidelog local` writes and `aws s3 sync` makes of a bucket.

    Hidden files are none of the lake: desktops leave some in each folder that is looked at.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        return str(self._root)

    def keys(self, prefix: str, after: str = "") -> Iterator[Listed]:
        """See `Store`."""
        found = [
            (Path(place, name).relative_to(self._root).as_posix(), Path(place, name))
            for place, _, names in os.walk(self._root / prefix)
            for name in names
            if not name.startswith(".")
        ]
        for key, path in sorted(found, key=lambda each: each[0].encode()):
            if key.encode() > after.encode():
                stat = path.stat()
                yield Listed(key, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))

    def folders(self, prefix: str) -> Iterator[str]:
        """See `Store`."""
        place = self._root / prefix
        if place.is_dir():
            yield from (each.name for each in place.iterdir() if each.is_dir())

    def holds(self, key: str) -> bool:
        """See `Store`."""
        return not _leaves(key) and (self._root / key).is_file()

    def read(self, key: str) -> bytes:
        """See `Store`."""
        with self.open(key) as file:
            return file.read()

    def open(self, key: str) -> BinaryIO:
        """See `Store`."""
        if _leaves(key):
            raise NoSuchObjectError(key)
        try:
            return (self._root / key).open("rb")
        except FileNotFoundError as error:
            raise NoSuchObjectError(key) from error


def _leaves(key: str) -> bool:
    """Say whether a key, as somebody may have written it into an event, would be a file outside of the folder."""
    return bool({"", ".", ".."} & set(key.split("/"))) or "\0" in key


def find_store(place: str, s3: Callable[[], S3Client]) -> Store:
    """Return the store at `s3://bucket`, `s3://bucket/prefix` or a folder's path.

    Args:
        place: where the lake is.
        s3: makes a client, if one is needed.

    Raises:
        InvalidSetting: there is no lake.
        AccessDenied, StoreUnreachable: as they say.
    """
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    if place.startswith("s3://") and not bucket:
        raise InvalidSetting("open the lake", place, "it names no bucket", "Write s3://bucket or s3://bucket/prefix")
    store = Bucket(s3(), bucket, prefix) if place.startswith("s3://") else Folder(Path(place))
    if next(store.folders("ledger/"), None) is None:
        hint = "Name what holds data/ and ledger/: a folder that `tidelog local run --lake` has filled, or a bucket"
        raise InvalidSetting("open the lake", place, "there is no ledger in it", hint)
    return store
