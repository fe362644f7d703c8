"""The lake bucket as plain files: the object ``data/x`` is the file ``data/x`` of a directory.

moto keeps objects in memory. Here a bucket's objects stay in their files, which are written under ``.tidelog`` and then
renamed, before the request is answered: whoever reads the directory never sees half an object. Parts of uploads in
progress are files there too, and are forgotten when the sandbox starts again.

A mirrored bucket keeps no versions: a directory has none.
"""

import datetime as dt
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from moto.s3 import models
from moto.s3.exceptions import EntityTooSmall, InvalidPart, MalformedXML, NoSuchUpload, S3ClientError
from moto.s3.utils import _VersionedKeyStore
from moto.settings import S3_UPLOAD_PART_MIN_SIZE

from tidelog_sandbox.errors import SandboxError
from tidelog_sandbox.mending import mend

_FOLDERS = ("data", "ledger", "schema")
_WORK = ".tidelog"
_COPY_BYTES = 1 << 20
_NAME_BYTES = 255


class UnsafeKeyError(S3ClientError):
    """The key cannot be the path of a file inside the directory."""

    code = "InvalidRequest"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"The key {key!r} cannot be a file of the lake directory: "
            f"its parts must not be empty, . or .., nor longer than {_NAME_BYTES} bytes"
        )


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The content of an object or of a part, in a file."""

    path: Path
    size: int
    etag: str

    @classmethod
    def found(cls, path: Path) -> "StoredFile":
        """An object of an earlier run. Its ETag is made of its size and time: reading gigabytes would take long."""
        stat = path.stat()
        mark = hashlib.md5(f"{stat.st_size}:{stat.st_mtime_ns}".encode(), usedforsecurity=False)
        return cls(path, stat.st_size, f"{mark.hexdigest()}-1")


class Directory:
    """The directory of a mirrored bucket: where an object's file lies, and how it gets there.

    Raises:
        SandboxError: another sandbox has it, whose conditional writes hold among its own only; or it can't be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._work = root / _WORK
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(root, os.O_RDONLY)  # open for as long as this process is there
            with suppress(OSError):  # such as of a network's file system that knows no locks
                _lock(self._lock, root)
            shutil.rmtree(self._work, ignore_errors=True)  # uploads that an earlier run left
            self._work.mkdir()
        except OSError as error:
            raise SandboxError(
                f"{error.filename}: {error.strerror}. It has to be a directory that can be written"
            ) from error

    def path(self, key: str) -> Path:
        """The file of an object. Raises UnsafeKeyError for a key that would leave the directory."""
        parts = key.split("/")
        too_long = any(len(part.encode()) > _NAME_BYTES for part in parts)
        if too_long or any(part in ("", ".", "..") for part in parts) or "\0" in key or parts[0] == _WORK:
            raise UnsafeKeyError(key)
        return self.root.joinpath(*parts)

    def found(self) -> Iterator[str]:
        """The keys of the objects of earlier runs."""
        for folder in _FOLDERS:
            for place, _, names in os.walk(self.root / folder):
                prefix = Path(place).relative_to(self.root).as_posix()
                yield from (f"{prefix}/{name}" for name in names)

    def store(self, content: bytes) -> StoredFile:
        """Write bytes to a file of their own under ``.tidelog``."""
        with tempfile.NamedTemporaryFile(dir=self._work, delete=False) as file:
            file.write(content)
        return StoredFile(Path(file.name), len(content), hashlib.md5(content, usedforsecurity=False).hexdigest())

    def place(self, key: str, file: StoredFile) -> StoredFile:
        """Rename a file from ``.tidelog`` to its object's place."""
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        with file.path.open("rb") as written:
            os.fsync(written.fileno())  # an event must not outlive the segment that it names
        file.path.chmod(0o644)  # a temporary file is the owner's alone
        file.path.replace(target)
        return StoredFile(target, file.size, file.etag)


def _lock(descriptor: int, root: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        said = f"another process works in {root}. Stop it, or wait until it has ended"
        raise SandboxError(said) from None


class MirroredKeys(_VersionedKeyStore):
    """A bucket's objects: those of this run, and those found in the directory, which become objects when asked for."""

    def __init__(self, bucket: models.FakeBucket, directory: Directory) -> None:
        super().__init__()
        self.directory = directory
        self._bucket = bucket
        for key in directory.found():
            dict.__setitem__(self, key, [])

    def getlist(self, key: str, default: Any = None) -> Any:
        """The object as a list of one version, or the default."""
        versions = dict.get(self, key)
        if versions == []:
            try:
                versions = [self._found(key)]
            except FileNotFoundError:  # somebody removed it from the directory meanwhile
                dict.pop(self, key, None)
                return default
            dict.__setitem__(self, key, versions)
        return default if versions is None else versions

    def __getitem__(self, key: str) -> Any:
        versions = self.getlist(key)
        if not versions:
            raise KeyError(key)
        return versions[-1]

    def under(self, prefix: str) -> dict[str, Any]:
        """The objects whose keys begin with a prefix."""
        found = {key: self.getlist(key) for key in list(self) if key.startswith(prefix)}
        return {key: versions[-1] for key, versions in found.items() if versions}

    def pop(self, key: str) -> None:  # type: ignore[override]  # moto's store returns nothing
        """Delete an object and its file."""
        super().pop(key)
        self.directory.path(key).unlink(missing_ok=True)

    def _found(self, key: str) -> models.FakeKey:
        file = StoredFile.found(self.directory.path(key))
        found = models.FakeKey(
            key,
            file,  # type: ignore[arg-type]  # install() lets a key hold a file
            account_id=self._bucket.account_id,
            region_name=self._bucket.region_name,
            bucket_name=self._bucket.name,
            version_id="null",
            etag=file.etag,
        )
        found.last_modified = dt.datetime.fromtimestamp(file.path.stat().st_mtime, dt.UTC).replace(tzinfo=None)
        return found


def mirror(bucket: models.FakeBucket, root: Path) -> None:
    """Make an empty bucket the mirror of a directory, which is made if it does not exist.

    Raises:
        SandboxError: the bucket has objects.
    """
    if len(bucket.keys):
        raise SandboxError(f"bucket {bucket.name} has objects already. Mirror it before anything is put there")
    bucket.keys = MirroredKeys(bucket, Directory(root))
    bucket.versioning_status = None


def _directory(bucket: models.FakeBucket) -> Directory | None:
    return bucket.keys.directory if isinstance(bucket.keys, MirroredKeys) else None


class MirroringBackend(models.S3Backend):
    """The operations that bring content, keeping that of mirrored buckets in files."""

    def put_object(self, bucket_name: str, key_name: str, value: Any, *args: Any, **kwargs: Any) -> models.FakeKey:
        """Write an object: its file first."""
        if directory := _directory(self.get_bucket(bucket_name)):
            directory.path(key_name)  # refuse before anything is written
            value = directory.place(key_name, value if isinstance(value, StoredFile) else directory.store(value))
        return super().put_object(bucket_name, key_name, value, *args, **kwargs)

    def upload_part(self, bucket_name: str, multipart_id: str, part_id: int, value: Any) -> models.FakeKey:
        """Keep a part in a file until its upload ends."""
        bucket = self.get_bucket(bucket_name)
        if multipart_id not in bucket.multiparts:  # moto answers 500
            raise NoSuchUpload(upload_id=multipart_id)
        if directory := _directory(bucket):
            value = directory.store(value)
        return super().upload_part(bucket_name, multipart_id, part_id, value)

    def create_multipart_upload(
        self, bucket_name: str, key_name: str, *args: Any, **kwargs: Any
    ) -> models.FakeMultipart:
        """Begin an upload."""
        if directory := _directory(self.get_bucket(bucket_name)):
            directory.path(key_name)  # refuse before anything is written
        return super().create_multipart_upload(bucket_name, key_name, *args, **kwargs)

    def complete_multipart_upload(self, bucket_name: str, multipart_id: str, body: Any) -> models.FakeKey | None:
        """Make an upload an object."""
        if multipart_id not in self.get_bucket(bucket_name).multiparts:  # moto answers 500
            raise NoSuchUpload(upload_id=multipart_id)
        return super().complete_multipart_upload(bucket_name, multipart_id, body)

    def list_objects(self, bucket: models.FakeBucket, prefix: str | None, *args: Any, **kwargs: Any) -> Any:
        """List; of a mirrored bucket only the files under the prefix are looked at."""
        if isinstance(bucket.keys, MirroredKeys):
            bucket = cast("models.FakeBucket", SimpleNamespace(keys=bucket.keys.under(prefix or "")))
        return super().list_objects(bucket, prefix, *args, **kwargs)


def _join(upload: models.FakeMultipart, body: Iterable[tuple[int, str]]) -> tuple[StoredFile, str, None]:
    """Write an upload's parts one after the other to a file; moto would do it in memory, three times."""
    listed: list[models.FakeKey] = []
    for number, etag in body:
        part = upload.parts.get(number)
        if part is None or part.etag.strip('"') != etag.strip('"'):
            raise InvalidPart
        listed.append(part)
    if not listed:
        raise MalformedXML
    if any(part.contentsize < S3_UPLOAD_PART_MIN_SIZE for part in listed[:-1]):
        raise EntityTooSmall
    files: list[StoredFile] = [part.file for part in listed]  # type: ignore[attr-defined]  # see install()
    marks = hashlib.md5(b"".join(bytes.fromhex(file.etag) for file in files), usedforsecurity=False)
    etag = f"{marks.hexdigest()}-{len(files)}"
    with tempfile.NamedTemporaryFile(dir=files[0].path.parent, delete=False) as joined:
        for file in files:
            with file.path.open("rb") as source:
                shutil.copyfileobj(source, joined, _COPY_BYTES)
        size = joined.tell()
    return StoredFile(Path(joined.name), size, etag), etag, None


def install() -> None:
    """Let moto's keys hold a :class:`StoredFile` for a value, and its backend use them."""

    def get(key: Any) -> bytes:
        file: StoredFile | None = getattr(key, "file", None)
        return file.path.read_bytes() if file else in_memory.fget(key)

    def put(key: Any, value: bytes | StoredFile) -> None:
        if isinstance(value, StoredFile):
            key.file, key.contentsize = value, value.size
            key._etag = key._etag or value.etag  # noqa: SLF001  # moto would compute it from memory
        else:
            in_memory.fset(key, value)

    def discard(key: Any, *, garbage: bool = False) -> None:
        file: StoredFile | None = getattr(key, "file", None)
        if file and file.path.parent.name == _WORK:  # a part's, not an object's
            file.path.unlink(missing_ok=True)
        dispose(key, garbage=garbage)

    def complete(upload: models.FakeMultipart, body: Any) -> Any:
        in_files = any(hasattr(part, "file") for part in upload.parts.values())
        return _join(upload, body) if in_files else join(upload, body)

    in_memory = mend(models.FakeKey, "value", property(get, put))
    dispose = mend(models.FakeKey, "dispose", discard)
    join = mend(models.FakeMultipart, "complete", complete)
    mend(models.s3_backends, "backend", MirroringBackend)
