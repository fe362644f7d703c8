"""A lake is read from a bucket or a folder, alike."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.tide import Tide
from tidelog.errors import AccessDenied, InvalidSetting
from tidelog.history import History
from tidelog.stores import Bucket, Folder, NoSuchObjectError, Store, find_store
from tidelog.tables import TableName

OBJECTS = {
    "data/a.b/dt=2026-11-23/2": b"two",
    "data/a.b/dt=2026-11-24/1": b"one",
    "data/a.b%2Ec/dt=2026-11-23/1": b"",
    "data/a.é/dt=2026-11-23/1": b"x",
    "ledger/a.b/000000000001.json": b"{}",
}


def folder(tmp_path: Path, tide: Tide) -> Store:
    """Return a folder with the objects."""
    for key, body in OBJECTS.items():
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return find_store(str(tmp_path), lambda: pytest.fail("a folder needs no client"))


def bucket(prefix: str) -> Callable[[Path, Tide], Store]:
    """Return what puts the objects into a bucket."""

    def put(_: Path, tide: Tide) -> Store:
        for key, body in OBJECTS.items():
            tide.lake.s3.put_object(Bucket=tide.lake.bucket, Key=prefix + key, Body=body)
        return find_store(f"s3://{tide.lake.bucket}/{prefix}", lambda: tide.lake.s3)

    return put


@pytest.mark.parametrize("place", [folder, bucket(""), bucket("copies/of/it/")], ids=["folder", "bucket", "prefix"])
def test_a_store_lists_and_reads_what_is_there(
    place: Callable[[Path, Tide], Store], tmp_path: Path, tide: Tide
) -> None:
    """In the order of the keys' bytes; what is not there is said to be so."""
    store = place(tmp_path, tide)
    assert sorted(store.folders("data/")) == ["a.b", "a.b%2Ec", "a.é"]
    assert list(store.folders("nothing/")) == []
    listed = list(store.keys("data/a.b/"))
    assert [(each.key, each.size) for each in listed] == [
        ("data/a.b/dt=2026-11-23/2", 3),
        ("data/a.b/dt=2026-11-24/1", 3),
    ]
    assert all(abs(each.written - datetime.now(UTC)) < timedelta(minutes=1) for each in listed)
    assert [found.key for found in store.keys("data/a.b/", "data/a.b/dt=2026-11-23/2")] == ["data/a.b/dt=2026-11-24/1"]
    assert list(store.keys("data/a/")) == []
    for key, body in OBJECTS.items():
        assert store.holds(key)
        assert store.read(key) == body
        with store.open(key) as stream:
            assert stream.read() == body
    assert not store.holds("data/a.b/dt=2026-11-23/3")
    for read in (store.read, store.open):
        with pytest.raises(NoSuchObjectError):
            read("data/a.b/dt=2026-11-23/3")
    tide.lake.empty()


def test_what_is_no_lake_is_refused(tmp_path: Path, tide: Tide) -> None:
    """With what to name instead."""
    for place in (str(tmp_path), str(tmp_path / "nowhere"), f"s3://{tide.lake.bucket}"):
        with pytest.raises(InvalidSetting, match=r"there is no ledger in it\. Name"):
            find_store(place, lambda: tide.lake.s3)
    with pytest.raises(InvalidSetting, match=r"it names no bucket\. Write s3://bucket"):
        find_store("s3://", lambda: tide.lake.s3)


def test_a_folder_that_was_copied_from_a_bucket_tells_the_same(tide: Tide, tmp_path: Path) -> None:
    """Events, states, documents."""
    tide.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    tide.ingest()
    tide.run("INSERT INTO t VALUES (2)")
    tide.ingest()
    for key in tide.lake.keys(""):
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(tide.lake.body(key))
    here, there = History(Folder(tmp_path)), History(Bucket(tide.lake.s3, tide.lake.bucket))
    assert list(here.tables()) == list(there.tables()) == [TableName("public", "t")]
    for table in here.tables():
        assert list(here.events(table)) == list(there.events(table))
        head = here.head(table)
        assert head
        assert here.schema(table, head.state.schema or "") == there.schema(table, head.state.schema or "")


@pytest.mark.parametrize(
    "key", ["../secret", "data/../../secret", "{root}/../secret", "data/./x", "data//x", "", "a\0b"]
)
def test_a_folder_gives_nothing_that_lies_outside_of_it(key: str, tmp_path: Path) -> None:
    """Whatever somebody has written into an event: to a lake such a key is of no object."""
    lake = tmp_path / "lake"
    (lake / "data").mkdir(parents=True)
    for path in (tmp_path / "secret", lake / "data" / "x"):
        path.write_text("canary")
    folder, harm = Folder(lake), key.format(root=lake)
    assert folder.read("data/x") == b"canary"
    assert not folder.holds(harm)
    with pytest.raises(NoSuchObjectError):
        folder.read(harm)


def test_a_bucket_that_is_not_there_is_named(tide: Tide) -> None:
    """With what to check."""
    with pytest.raises(AccessDenied, match=r"list s3://no-such-bucket/ledger/: .*check --lake"):
        find_store("s3://no-such-bucket", lambda: tide.lake.s3)
