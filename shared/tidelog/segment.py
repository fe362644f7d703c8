"""Segments: JSON lines, compressed, on their way into the lake as uploads that nobody sees until they are published."""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec
from botocore.exceptions import ClientError
from isal import isal_zlib

from tidelog.failures import error_code, store_errors
from tidelog.lake import schema_key
from tidelog.objects import create, put_new
from tidelog.partitions import Partitions
from tidelog.readings import Segment
from tidelog.schema import SchemaDocument
from tidelog.tables import TableName

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PART_BYTES = 8 * 2**20
_PARTS_IN_FLIGHT = 2
_GZIP = 31  # zlib's window of 2**15 bytes, and a gzip header without a time in it
_LEVEL = 1


class UploadGoneError(Exception):
    """The multipart upload of a segment is neither there nor completed."""


class Upload:
    """A segment being written: lines go in, parts go out beside it.

    Used as a context manager: left without `finish`, the upload is aborted. Memory holds a few parts, whatever comes.
    """

    def __init__(self, s3: S3Client, bucket: str, key: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._key = key
        self._upload: str | None = None
        self._compressor = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP)
        self._pending = bytearray()
        self._sender = ThreadPoolExecutor(max_workers=1, thread_name_prefix="upload")
        self._in_flight: deque[Future[str]] = deque()
        self._etags: list[str] = []
        self._parts = 0
        self._bytes = 0
        self._digest = hashlib.sha256()
        self.text_bytes = 0

    def write(self, data: bytes) -> None:
        """Take some whole lines, each with its newline at the end."""
        self.text_bytes += len(data)
        self._pending += self._compressor.compress(data)
        if len(self._pending) >= _PART_BYTES:
            self._send()

    def finish(self, schema: str, rows: int) -> Segment:
        """Send what is left and return the segment, prepared but not yet visible to anybody.

        Args:
            schema: fingerprint of the schema document that describes the lines.
            rows: how many lines there are.
        """
        self._pending += self._compressor.flush()
        self._send()
        while self._in_flight:
            self._etags.append(self._in_flight.popleft().result())
        upload, self._upload = self._upload, None
        return Segment(
            key=self._key,
            upload=upload or "",
            etags=tuple(self._etags),
            rows=rows,
            bytes=self._bytes,
            text_bytes=self.text_bytes,
            schema=schema,
            digest=self._digest.hexdigest(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sender.shutdown(wait=True, cancel_futures=True)
        if self._upload is not None:
            _abort(self._s3, self._bucket, self._key, self._upload)

    def _send(self) -> None:
        if self._upload is None:
            with store_errors("prepare", self._key):
                started = self._s3.create_multipart_upload(
                    Bucket=self._bucket, Key=self._key, ContentType="application/x-ndjson"
                )
            self._upload = started["UploadId"]
        while len(self._in_flight) >= _PARTS_IN_FLIGHT:
            self._etags.append(self._in_flight.popleft().result())
        body, self._pending = bytes(self._pending), bytearray()
        self._parts += 1
        self._bytes += len(body)
        self._in_flight.append(self._sender.submit(self._send_part, self._upload, self._parts, body))

    def _send_part(self, upload: str, number: int, body: bytes) -> str:
        self._digest.update(body)  # Here, beside the reading: one thread sends all parts, in order.
        with store_errors("prepare", self._key):
            return self._s3.upload_part(
                Bucket=self._bucket, Key=self._key, UploadId=upload, PartNumber=number, Body=body
            )["ETag"]


class Segments:
    """The lake's data and its schema documents."""

    def __init__(self, s3: S3Client, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket

    def prepare(self, key: str) -> Upload:
        """Begin a segment. Nothing is created in the bucket before the first line."""
        return Upload(self._s3, self._bucket, key)

    def publish(self, segment: Segment) -> None:
        """Make a committed segment visible; anybody can, any number of times. What is there stays as it is.

        Raises:
            UploadGoneError: the upload was aborted before it was completed.
            StoreUnreachable, AccessDenied: as they say.
        """
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(segment.etags, 1)]
        with store_errors("publish", segment.key):
            try:
                create(
                    lambda: self._s3.complete_multipart_upload(
                        Bucket=self._bucket,
                        Key=segment.key,
                        UploadId=segment.upload,
                        MultipartUpload={"Parts": parts},  # type: ignore[typeddict-item] # an inferred dict is no TypedDict
                        IfNoneMatch="*",
                    )
                )
            except ClientError as error:
                if error_code(error) != "NoSuchUpload":
                    raise
                if not self.is_published(segment):
                    raise UploadGoneError(segment.key) from error

    def is_published(self, segment: Segment) -> bool:
        """Say whether the segment's object is there."""
        with store_errors("look up", segment.key):
            try:
                self._s3.head_object(Bucket=self._bucket, Key=segment.key)
            except ClientError as error:
                if error_code(error) in ("404", "NoSuchKey"):
                    return False
                raise
        return True

    def abort(self, segment: Segment) -> None:
        """Throw away a segment that was prepared and will not be committed."""
        _abort(self._s3, self._bucket, segment.key, segment.upload)

    def describe(self, table: TableName, document: SchemaDocument | Partitions) -> None:
        """Write a schema document, or which partitions there are; one that is there already is the same one."""
        body = msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
        put_new(self._s3, self._bucket, schema_key(table, document.fingerprint), body)


def _abort(s3: S3Client, bucket: str, key: str, upload: str) -> None:
    with store_errors("abort", key):
        try:
            s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
        except ClientError as error:
            if error_code(error) != "NoSuchUpload":
                raise
