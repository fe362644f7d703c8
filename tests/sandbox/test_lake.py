"""A bucket as a directory."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tidelog_sandbox import SandboxError
from tidelog_sandbox.cloud import Cloud

MIB = 1 << 20


@pytest.fixture
def s3(cloud: Cloud) -> Any:
    """A client."""
    return cloud.client("s3")


@pytest.fixture
def lake(cloud: Cloud, bucket: str, tmp_path: Path) -> Path:
    """The directory that the bucket is a mirror of."""
    cloud.mirror(bucket, tmp_path / "lake")
    return tmp_path / "lake"


def files(lake: Path) -> set[str]:
    """Every file of a directory."""
    return {path.relative_to(lake).as_posix() for path in lake.rglob("*") if path.is_file()}


def upload(s3: Any, bucket: str, key: str, parts: list[bytes]) -> tuple[str, dict[str, Any]]:
    """Begin an upload and send its parts."""
    identity = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    sent = [
        {
            "PartNumber": number,
            "ETag": s3.upload_part(Bucket=bucket, Key=key, UploadId=identity, PartNumber=number, Body=part)["ETag"],
        }
        for number, part in enumerate(parts, start=1)
    ]
    return identity, {"Parts": sent}


def test_an_object_is_a_file_as_soon_as_it_is_put(s3: Any, bucket: str, lake: Path) -> None:
    """Also one with percent-encoded characters in its name, which stay as they are; nothing else lies there."""
    key = "data/public.a%2Fb/dt=2026-11-23/0001 é.jsonl.gz"
    etag = s3.put_object(Bucket=bucket, Key=key, Body=b"one")["ETag"]
    assert (lake / key).read_bytes() == b"one"
    assert files(lake) == {key}
    assert etag == f'"{hashlib.md5(b"one", usedforsecurity=False).hexdigest()}"'
    s3.put_object(Bucket=bucket, Key=key, Body=b"two")
    assert (lake / key).read_bytes() == b"two"
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"two"
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]


def test_a_deleted_object_is_no_file_any_more(s3: Any, bucket: str, lake: Path) -> None:
    """By itself, or with others at once."""
    for key in ("data/a", "data/b", "data/c"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    s3.delete_object(Bucket=bucket, Key="data/a")
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "data/b"}]})
    assert files(lake) == {"data/c"}


def test_an_upload_is_a_file_only_when_it_is_complete(s3: Any, bucket: str, lake: Path) -> None:
    """Its parts lie beside, and leave nothing behind."""
    parts = [b"a" * 5 * MIB, b"b" * 5 * MIB, b"c"]
    identity, listed = upload(s3, bucket, "data/big", parts)
    assert not (lake / "data").exists()
    assert len(files(lake)) == 3
    assert [part["Size"] for part in s3.list_parts(Bucket=bucket, Key="data/big", UploadId=identity)["Parts"]][2] == 1
    s3.complete_multipart_upload(
        Bucket=bucket, Key="data/big", UploadId=identity, MultipartUpload=listed, IfNoneMatch="*"
    )
    assert files(lake) == {"data/big"}
    assert (lake / "data/big").read_bytes() == b"".join(parts)
    got = s3.get_object(Bucket=bucket, Key="data/big", Range=f"bytes={5 * MIB - 1}-{5 * MIB}")["Body"].read()
    assert got == b"ab"


def test_an_aborted_upload_leaves_nothing(s3: Any, bucket: str, lake: Path) -> None:
    """Neither does a part that was sent twice."""
    identity, _ = upload(s3, bucket, "data/big", [b"x"])
    s3.upload_part(Bucket=bucket, Key="data/big", UploadId=identity, PartNumber=1, Body=b"y")
    assert len(files(lake)) == 1
    s3.abort_multipart_upload(Bucket=bucket, Key="data/big", UploadId=identity)
    assert files(lake) == set()


@pytest.mark.parametrize("spoil", ["order", "etag", "size", "none"])
def test_a_wrong_completion_is_refused_and_may_be_tried_again(s3: Any, bucket: str, lake: Path, spoil: str) -> None:
    """As S3 refuses it: a part that was not sent, another ETag, a small part before the last, no part at all."""
    identity, listed = upload(s3, bucket, "data/big", [b"a" * 5 * MIB, b"small", b"c"])
    (first, second, third) = listed["Parts"]
    wrong = {
        "order": [first, {**third, "PartNumber": 4}],
        "etag": [{**first, "ETag": '"0"'}],
        "size": [first, second, third],
        "none": [],
    }[spoil]
    with pytest.raises(ClientError, match=r"InvalidPart|EntityTooSmall|MalformedXML"):
        s3.complete_multipart_upload(Bucket=bucket, Key="data/big", UploadId=identity, MultipartUpload={"Parts": wrong})
    right = {"Parts": [first, third]}
    s3.complete_multipart_upload(Bucket=bucket, Key="data/big", UploadId=identity, MultipartUpload=right)
    assert (lake / "data/big").stat().st_size == 5 * MIB + 1


def test_a_condition_holds_for_files_of_an_earlier_run(cloud: Cloud, s3: Any, bucket: str, tmp_path: Path) -> None:
    """What lies in data, ledger and schema are objects again: listed, read, and in the way of If-None-Match."""
    for key in ("data/t/1", "ledger/t/0000.json", "schema/t/f.json", "elsewhere/x", ".tidelog/left-over"):
        (tmp_path / key).parent.mkdir(parents=True)
        (tmp_path / key).write_text(key)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    cloud.mirror(bucket, tmp_path)
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    listed = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert [item["Key"] for item in listed] == ["data/t/1", "ledger/t/0000.json", "schema/t/f.json"]
    head = s3.head_object(Bucket=bucket, Key="data/t/1")
    assert (head["ContentLength"], head["ETag"]) == (8, listed[0]["ETag"])
    assert s3.get_object(Bucket=bucket, Key="schema/t/f.json")["Body"].read() == b"schema/t/f.json"
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="ledger/t/0000.json", Body=b"mine", IfNoneMatch="*")
    assert (tmp_path / "ledger/t/0000.json").read_text() == "ledger/t/0000.json"
    s3.put_object(Bucket=bucket, Key="ledger/t/0001.json", Body=b"mine", IfNoneMatch="*")
    s3.delete_object(Bucket=bucket, Key="data/t/1")
    assert files(tmp_path) == {"elsewhere/x", "ledger/t/0000.json", "ledger/t/0001.json", "schema/t/f.json"}


def test_a_list_says_folders_and_begins_where_it_is_told(s3: Any, bucket: str, lake: Path) -> None:
    """With a prefix, a delimiter and a start, over pages."""
    for number in range(5):
        s3.put_object(Bucket=bucket, Key=f"ledger/t/{number}.json", Body=b"x")
        s3.put_object(Bucket=bucket, Key=f"data/t/dt={number}/x", Body=b"x")
    pages = s3.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix="ledger/t/", StartAfter="ledger/t/1.json", PaginationConfig={"PageSize": 2}
    )
    keys = [item["Key"] for page in pages for item in page["Contents"]]
    assert keys == [f"ledger/t/{number}.json" for number in (2, 3, 4)]
    folders = s3.list_objects_v2(Bucket=bucket, Prefix="data/t/", Delimiter="/")["CommonPrefixes"]
    assert [folder["Prefix"] for folder in folders] == [f"data/t/dt={number}/" for number in range(5)]


def test_a_file_that_somebody_removed_is_no_object(cloud: Cloud, s3: Any, bucket: str, tmp_path: Path) -> None:
    """As long as nobody had asked for it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x").write_text("x")
    cloud.mirror(bucket, tmp_path)
    (tmp_path / "data/x").unlink()
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket=bucket, Key="data/x")


def test_a_bucket_with_objects_is_not_mirrored(cloud: Cloud, s3: Any, bucket: str, tmp_path: Path) -> None:
    """They would be lost."""
    s3.put_object(Bucket=bucket, Key="x", Body=b"x")
    with pytest.raises(SandboxError, match=r"mirror the lake: bucket .* has objects already"):
        cloud.mirror(bucket, tmp_path)


def test_a_directory_is_one_sandboxs_at_a_time(cloud: Cloud, bucket: str, tmp_path: Path) -> None:
    """Two would overwrite each other's objects: each answers conditions by what it knows itself."""
    with Cloud() as other:
        other.client("s3").create_bucket(Bucket="other", CreateBucketConfiguration={"LocationConstraint": other.region})
        other.mirror("other", tmp_path)
        with pytest.raises(SandboxError, match=rf"another process works in {tmp_path}\. Stop it, or wait"):
            cloud.mirror(bucket, tmp_path)
        assert (tmp_path / ".tidelog").is_dir()
    cloud.mirror(bucket, tmp_path)


def test_a_directory_that_cannot_be_written_is_refused(cloud: Cloud, bucket: str, tmp_path: Path) -> None:
    """In a line that names it."""
    (tmp_path / ".tidelog").touch()
    with pytest.raises(SandboxError, match=rf"mirror the lake: {tmp_path}/\.tidelog: File exists\. It has to be"):
        cloud.mirror(bucket, tmp_path)


@pytest.mark.parametrize(
    "key", ["../x", "data/../../x", "data/./x", "/etc/x", "data//x", "data/", ".tidelog/x", "é" * 128]
)
@pytest.mark.parametrize("write", ["put", "upload"])
def test_a_key_that_would_leave_the_directory_is_refused(
    s3: Any, bucket: str, lake: Path, key: str, write: str
) -> None:
    """So is one that no file can have."""
    writes: dict[str, Callable[[], object]] = {
        "put": lambda: s3.put_object(Bucket=bucket, Key=key, Body=b"x"),
        "upload": lambda: s3.create_multipart_upload(Bucket=bucket, Key=key),
    }
    with pytest.raises(ClientError, match="cannot be a file"):
        writes[write]()
    assert files(lake) == set()
    assert not (lake.parent / "x").exists()
