"""`tidelog.read`: a lake as a program reads it, from a folder or a bucket."""

from __future__ import annotations

import gzip
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.chaos.plan import ROOT
from tests.faults import COMMIT, PUBLISH, KilledError, Process
from tests.tide import LIMITS, Tide
from tidelog.errors import UnreadableData
from tidelog.lake import Position
from tidelog.read import Commit, Lake, LakeTable
from tidelog.tables import TableName

ORDERS = "public.sales_order"


def copy(tide: Tide, to: Path) -> Lake:
    """Copy the bucket to a folder."""
    for key in tide.lake.keys(""):
        (to / key).parent.mkdir(parents=True, exist_ok=True)
        (to / key).write_bytes(tide.lake.body(key))
    return Lake.open(str(to))


def reader(tide: Tide) -> LakeTable:
    """Open the table in the bucket."""
    return Lake.open(f"s3://{tide.lake.bucket}", tide.lake.s3).table("public.t")


def ids(commits: list[Commit]) -> list[list[int]]:
    """Return the ids in some segments."""
    return [sorted(row["id"] for row in commit.segment.rows()) for commit in commits]


def test_a_folder_gives_segments_and_rows_in_order_to_the_digit(tide: Tide, tmp_path: Path) -> None:
    """Across days, from any position on; numbers are int and Decimal, and only a newline ends a line."""
    odd = "12345678901234567890.1234567890"
    tide.run(
        "CREATE TABLE t (id int PRIMARY KEY, n numeric, f float8, v text)",
        f"INSERT INTO t VALUES (1, {odd}, 0.1, E'a\\u2028b\\u0085'), (2, 'NaN', 'Infinity', NULL)",
    )
    tide.ingest()
    for number in range(2):
        tide.run(f"UPDATE t SET n = {number} WHERE id = 1")
        tide.ingest()
    table = copy(tide, tmp_path).table("public.t")
    assert Lake.open(str(tmp_path)).tables() == ["public.t"]
    first, second, third = (tmp_path / segment.key for segment in table.segments())
    for path, day in ((first, "2026-11-25"), (second, "2026-11-24"), (third, "2026-11-23")):
        folder = path.parents[1] / f"dt={day}"
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    segments = table.segments()
    assert [segment.key.rpartition("/")[2] for segment in segments] == [first.name, second.name, third.name]
    assert all(isinstance(segment.position, Position) and segment.size > 0 for segment in segments)
    assert list(segments[0].rows()) == [
        {"id": 1, "n": Decimal(odd), "f": Decimal("0.1"), "v": "a\u2028b\x85"},
        {"id": 2, "n": "NaN", "f": "Infinity", "v": None},
    ]
    assert [row["n"] for row in table.rows(after=segments[0].position)] == [0, 1]
    assert {row["id"]: row["n"] for row in table.latest()} == {1: 1, 2: "NaN"}


def test_who_follows_has_each_segment_once_though_one_is_published_late_and_made_again(tide: Tide) -> None:
    """What is committed and not there yet is waited for; what was made again does not come once more."""
    tide.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    tide.ingest()
    table, process = reader(tide), Process()
    first = list(table.follow())
    tide.run("INSERT INTO t VALUES (2)")
    process.at("before", PUBLISH, process.kill)
    with pytest.raises(KilledError):
        tide.ingest(s3=process.client(tide.lake.s3))
    assert (ids(first), list(table.follow(first[-1].offset))) == ([[1]], [])
    tide.lake.expire_uploads()
    tide.run("ALTER TABLE t ADD v text", "INSERT INTO t VALUES (3)")
    tide.ingest()
    assert "remade" in tide.kinds()
    rest = list(table.follow(first[-1].offset))
    assert ids(rest) == [[2], [3]]
    assert rest[0].schema == rest[1].schema != first[0].schema
    assert [commit.offset for commit in rest] == sorted(commit.offset for commit in rest)
    assert list(table.follow(rest[-1].offset)) == []
    assert ids(list(table.follow())) == [[1], [2], [3]]


def test_positions_decide_where_a_chunk_commits_behind_an_increment(tide: Tide) -> None:
    """Rows were updated, and ingested, between the chunk's reading and its commit; and followed in two parts."""
    tide.run(
        "CREATE TABLE t (id int PRIMARY KEY, v text)",
        "INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 200) n",
    )
    tide.database.pass_horizon()  # Chunks read what is below it.
    tide.ingest(limits=replace(LIMITS, chunk_bytes=5 * 8192))
    first, *others = tide.outbox.take()
    table, process = reader(tide), Process()
    latest: dict[int, tuple[Position, dict[str, Any]]] = {}
    older = 0

    def update() -> None:
        tide.run("UPDATE t SET v = 'new' WHERE id < 5")
        tide.ingest()

    process.at("before", COMMIT, update)
    tide.read_chunks([first], s3=process.client(tide.lake.s3))
    offset = 0
    for _ in range(2):
        for commit in table.follow(offset):
            for row in commit.segment.rows():
                if row["id"] not in latest or latest[row["id"]][0] <= commit.segment.position:
                    latest[row["id"]] = (commit.segment.position, row)
                else:
                    older += 1
            offset = commit.offset
        tide.read_chunks(others)
    assert older == 4
    assert {key: row for key, (_, row) in latest.items()} == tide.table()
    assert {row["id"]: row for row in table.latest()} == tide.table()


def test_a_segment_that_is_broken_or_gone_is_named(tide: Tide, tmp_path: Path) -> None:
    """Cut off, changed, not JSON, not there: none of it is passed over."""
    tide.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t SELECT generate_series(1, 1000)")
    tide.ingest()
    table = copy(tide, tmp_path).table("public.t")
    [segment] = table.segments()
    path = tmp_path / segment.key
    whole = path.read_bytes()
    for body in (whole[:-9], whole[:-5] + b"\0" * 5, b"x" * 99, gzip.compress(b'{"id":1}\n{"id"\n')):
        path.write_bytes(body)
        with pytest.raises(UnreadableData, match=re.escape(segment.key)):
            list(segment.rows())
    path.unlink()
    with pytest.raises(UnreadableData, match=r"there is no such object\. Put it back"):
        list(segment.rows())
    assert list(table.follow()) == []


@pytest.mark.parametrize("document", ["README.md", "docs/reading.md"])
def test_the_documents_examples_run(tide: Tide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: str) -> None:
    """As they stand, on a folder that is called so; who follows goes on from where they were."""
    tide.run(
        "CREATE TABLE sales_order "
        "(sales_order_id int PRIMARY KEY, units_sold int, unit_price numeric, last_updated date)",
        "INSERT INTO sales_order SELECT n, n, 1.10, '2026-11-23' FROM generate_series(1, 10) n",
    )
    tide.ingest(ORDERS)
    tide.run("UPDATE sales_order SET unit_price = 2.20 WHERE sales_order_id = 10")
    tide.ingest(ORDERS)
    copy(tide, tmp_path / "mylake")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.+?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    found: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, document, "exec"), found)  # noqa: S102 - it is our own
    if document == "docs/reading.md":
        assert found["total"] == Decimal("1.10") * 45 + 22
        assert found["types"]["unit_price"] == "numeric"
        assert {key: row["unit_price"] for key, (_, row) in found["latest"].items()}[10] == Decimal("2.20")
        assert Path("offset").read_text(encoding="utf-8") == str(tide.state(ORDERS).offset)
        exec(compile(blocks[-1], document, "exec"), found)  # noqa: S102
        assert found["latest"] == {}
    assert json.loads(tide.lines(ORDERS)[-1])["sales_order_id"] == 10
    assert TableName.parse(ORDERS).path in str(next(Path("mylake/data").iterdir()))


def test_true_and_1_are_two_keys_and_so_is_null_of_json(tide: Tide) -> None:
    """In a primary key of jsonb; where Python takes the first two for one."""
    tide.run(
        "CREATE TABLE t (id jsonb PRIMARY KEY)",
        """INSERT INTO t VALUES ('true'), ('1'), ('"1"'), ('null'), ('[1]'), ('[true]'), ('{"a":1}'), ('{"a":true}')""",
    )
    tide.ingest()
    assert len(list(reader(tide).latest())) == 8


def test_what_a_desktop_leaves_in_a_folder_is_none_of_the_lake_and_all_else_is_told(tide: Tide, tmp_path: Path) -> None:
    """Hidden files are passed over. Of any other nobody knows whether it was a segment."""
    tide.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    tide.ingest()
    lake = copy(tide, tmp_path)
    for folder in ("data", "ledger", "schema"):
        (tmp_path / folder / "public.t" / ".DS_Store").write_bytes(b"")
    table = lake.table("public.t")
    assert ids(list(table.follow())) == [[row["id"] for row in table.latest()]] == [[1]]
    (tmp_path / "data" / "public.t" / "copy.jsonl.gz").write_bytes(b"")
    with pytest.raises(UnreadableData, match=r"copy\.jsonl\.gz: it is not the name of a segment\. Move it out"):
        list(table.latest())
    (tmp_path / "ledger" / "public.t" / "copy.json").write_bytes(b"")
    with pytest.raises(UnreadableData, match=r"copy\.json: it is not the name of an event"):
        list(table.follow())


def test_what_python_can_not_take_apart_is_told(tide: Tide) -> None:
    """Brackets in thousands; the lines are there all the same."""
    tide.run("CREATE TABLE t (v json)", "INSERT INTO t VALUES ((repeat('[', 5000) || repeat(']', 5000))::json)")
    tide.ingest()
    [segment] = reader(tide).segments()
    with pytest.raises(UnreadableData, match="nested too deeply"):
        list(segment.rows())
    assert len(list(segment.lines())) == 1
