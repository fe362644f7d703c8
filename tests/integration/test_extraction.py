"""The contracts of the specification's functions: arguments, results, errors."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from types import GeneratorType

import pytest
from botocore.exceptions import EndpointConnectionError
from msgspec.structs import replace

from tests.conftest import REGION, Aws
from tests.tide import LOCK_SECONDS, Tide, wait_for
from tidelog import extraction
from tidelog.credentials import Credentials
from tidelog.parts import Parts
from tidelog.source import Source

TABLE = "public.orders"
EARLY, LATE = "2024-01-01T00:00:00+00:00", "2024-01-02T00:00:00.5+00:00"


@pytest.fixture
def using(tide: Tide) -> Parts:
    """The parts of a worker over a shop with two orders."""
    tide.run(
        "CREATE TABLE orders (id int PRIMARY KEY, total numeric, created_at timestamptz, last_updated timestamptz)",
        f"INSERT INTO orders VALUES (1, 9.90, '{EARLY}', NULL), (2, 1e3, '{EARLY}', '{LATE}')",
    )
    return tide.parts()


@pytest.fixture
def without_aws(using: Parts, monkeypatch: pytest.MonkeyPatch, aws: Aws) -> Parts:
    """The same parts, with an AWS that fails."""
    for client in (aws.s3, aws.ssm):
        monkeypatch.setattr(client, "_make_api_call", _fail)
    return using


def _fail(*_: object) -> None:
    raise EndpointConnectionError(endpoint_url="https://aws")


@pytest.fixture
def without_database(using: Parts) -> Parts:
    """The same parts, with a database that nobody listens for."""
    nobody = Credentials("127.0.0.1", "nobody", "", "nothing", 9)
    source = Source(lambda: nobody, "disable", lock_seconds=LOCK_SECONDS)
    return replace(using, source=source)


def test_timestamps_that_were_written_are_read_as_a_dictionary_and_one_by_one(using: Parts) -> None:
    """Write takes a dictionary; read gives it back whole, or one value of it."""
    extraction.write_timestamps({TABLE: EARLY, "public.staff": None}, using=using)
    assert extraction.read_timestamps(using=using) == {TABLE: EARLY, "public.staff": None}
    assert extraction.read_timestamps(TABLE, using=using) == EARLY
    extraction.write_timestamps({TABLE: LATE}, using=using)
    assert extraction.read_timestamps(TABLE, using=using) == LATE


def test_the_worker_and_the_functions_see_the_same_state(using: Parts, tide: Tide) -> None:
    """What the worker ingested is what the functions read."""
    tide.ingest(TABLE)
    assert extraction.read_timestamps(TABLE, using=using) == LATE
    assert extraction.read_sequential_id(TABLE, using=using) == 0
    tide.run("UPDATE orders SET total = 10")
    tide.ingest(TABLE)
    assert extraction.read_sequential_id(TABLE, using=using) == 1


@pytest.mark.parametrize("table", ["public.nothing", "not a name"])
def test_a_table_that_is_not_known_is_a_key_error(using: Parts, table: str) -> None:
    """KeyError is what a Python reader expects of an unknown table."""
    with pytest.raises(KeyError):
        extraction.read_timestamps(table, using=using)
    with pytest.raises(KeyError):
        extraction.read_sequential_id(table, using=using)
    with pytest.raises(KeyError):
        extraction.write_sequential_id(table, 1, using=using)
    with pytest.raises(KeyError):
        extraction.collect_rows(table, None, using=using)


def test_a_value_that_is_no_timestamp_is_refused_before_anything_is_written(using: Parts) -> None:
    """One wrong value and nothing is written."""
    with pytest.raises(ValueError, match="yesterday"):
        extraction.write_timestamps({TABLE: EARLY, "public.staff": "yesterday"}, using=using)
    assert extraction.read_timestamps(using=using) == {}


def test_rows_newer_than_a_timestamp_are_dictionaries_keyed_by_column_headings(using: Parts) -> None:
    """Newer by either column; a row at the timestamp itself is not newer."""
    newer = {"id": 2, "total": Decimal(1000), "created_at": EARLY, "last_updated": LATE}
    assert list(extraction.collect_rows(TABLE, EARLY, using=using)) == [newer]
    assert list(extraction.collect_rows(TABLE, LATE, using=using)) == []
    every = list(extraction.collect_rows(TABLE, None, using=using))
    assert [row["id"] for row in every] == [1, 2]
    assert every[0] == {"id": 1, "total": Decimal("9.90"), "created_at": EARLY, "last_updated": None}


def test_rows_stream_and_may_be_left_half_way(using: Parts, tide: Tide) -> None:
    """Nobody waits for the last row to get the first, and closing the iterator frees the table."""
    tide.run("CREATE TABLE many AS SELECT g AS id, repeat('x', 1000) AS text FROM generate_series(1, 200000) g")
    rows = extraction.collect_rows("public.many", None, using=using)
    assert isinstance(rows, GeneratorType)
    assert next(rows)["id"] == 1
    rows.close()
    wait_for(lambda: tide.database.one("SELECT count(*) FROM pg_locks WHERE relation = 'many'::regclass") == 0)
    assert len(list(extraction.collect_rows(TABLE, None, using=using))) == 2


def test_numbers_keep_every_digit(using: Parts, tide: Tide) -> None:
    """No float and no limit on digits comes between."""
    tide.run(
        f"CREATE TABLE exact AS SELECT 0.1::numeric AS tenth, {'7' * 5000}::numeric AS long, 'NaN'::numeric AS nan"
    )
    [row] = extraction.collect_rows("public.exact", None, using=using)
    assert row == {"tenth": Decimal("0.1"), "long": Decimal("7" * 5000), "nan": "NaN"}


def test_a_table_without_timestamp_columns_has_no_newer_rows(using: Parts, tide: Tide) -> None:
    """There is no such column: KeyError."""
    tide.run("CREATE TABLE plain (id int)")
    with pytest.raises(KeyError, match="no timestamp column"):
        extraction.collect_rows("public.plain", EARLY, using=using)


def test_the_latest_timestamp_is_that_of_any_created_or_updated_column(using: Parts) -> None:
    """The text of the row itself."""
    assert extraction.latest_timestamp(extraction.collect_rows(TABLE, None, using=using)) == LATE
    assert extraction.latest_timestamp([{"created_at": EARLY}, {"created_at": None}]) == EARLY
    assert extraction.latest_timestamp([]) is None
    with pytest.raises(KeyError, match="created_at"):
        extraction.latest_timestamp([{"id": 1}])


def test_rows_are_written_once_per_sequential_id(using: Parts, tide: Tide) -> None:
    """The object holds the rows; the same id again is FileExistsError, a gap ValueError; the caller keeps the state."""
    rows = list(extraction.collect_rows(TABLE, None, using=using))
    extraction.write_rows(TABLE, LATE, rows, 1, using=using)
    [key] = tide.lake.keys("data/")
    lines = gzip.decompress(tide.lake.body(key)).splitlines()
    assert [json.loads(line, parse_float=Decimal) for line in lines] == rows
    with pytest.raises(FileExistsError):
        extraction.write_rows(TABLE, LATE, rows, 1, using=using)
    with pytest.raises(ValueError, match="does not follow"):
        extraction.write_rows(TABLE, LATE, rows, 3, using=using)
    with pytest.raises(KeyError):
        extraction.read_sequential_id(TABLE, using=using)
    extraction.write_timestamps({TABLE: LATE}, using=using)
    extraction.write_sequential_id(TABLE, 1, using=using)
    assert extraction.read_sequential_id(TABLE, using=using) == 1
    assert tide.ingest(TABLE).outcome == "snapshotted"
    tide.run("UPDATE orders SET total = 0 WHERE id = 1")
    assert tide.ingest(TABLE).sequential_id == 2


def test_sequential_ids_go_up_by_one(using: Parts) -> None:
    """Anything else is a ValueError and changes nothing."""
    extraction.write_timestamps({TABLE: EARLY}, using=using)
    for wrong in (0, 2, -1):
        with pytest.raises(ValueError, match="The next is 1"):
            extraction.write_sequential_id(TABLE, wrong, using=using)
    extraction.write_sequential_id(TABLE, 1, using=using)
    assert extraction.read_sequential_id(TABLE, using=using) == 1


def test_a_store_out_of_reach_is_a_connection_error(without_aws: Parts) -> None:
    """Every function that needs Parameter Store or S3 says so."""
    using = without_aws
    for call in (
        lambda: extraction.read_timestamps(using=using),
        lambda: extraction.read_timestamps(TABLE, using=using),
        lambda: extraction.write_timestamps({TABLE: EARLY}, using=using),
        lambda: extraction.read_sequential_id(TABLE, using=using),
        lambda: extraction.write_sequential_id(TABLE, 1, using=using),
        lambda: extraction.write_rows(TABLE, EARLY, [], 1, using=using),
    ):
        with pytest.raises(ConnectionError):
            call()


def test_a_database_out_of_reach_is_a_connection_error(without_database: Parts) -> None:
    """It is told when rows are asked for, not when the first is taken."""
    with pytest.raises(ConnectionError):
        extraction.collect_rows(TABLE, None, using=without_database)


def test_the_parts_come_from_the_environment_by_default(
    tide: Tide, aws: Aws, monkeypatch: pytest.MonkeyPatch, using: Parts
) -> None:
    """As in the worker: a secret in RDS's format, a bucket, a prefix."""
    server = tide.database.server
    secret = {"host": "127.0.0.1", "port": server.port, "dbname": tide.database.name, "username": "postgres"}
    created = aws.secrets.create_secret(
        Name=tide.lake.bucket, SecretString=json.dumps({**secret, "password": server.password, "engine": "postgres"})
    )
    variables = {"STACK": "test", "DATABASE_SECRET": created["ARN"], "DATABASE_TLS": "disable"}
    variables |= {"DATABASE_AUTHENTICATION": "password"}
    variables |= {"BUCKET": tide.lake.bucket, "PARAMETERS": tide.lake.prefix, "LOOK_BACK_SECONDS": "600"}
    variables |= {"TIME_BOUND_MEGABYTES": "64", "FAILOVER_MARGIN_SECONDS": "3600", "LOCK_SECONDS": "10"}
    variables |= dict.fromkeys(("TOPIC", "WORK_QUEUE_URL", "BACKFILL_QUEUE_URL", "DEAD_LETTERS_URL"), "unused")
    variables |= {"STALE_SECONDS": "1800", "RETRY_SECONDS": "60", "TRIES": "5", "CHUNK_MEGABYTES": "512"}
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    for name, value in variables.items():
        monkeypatch.setenv(f"TIDELOG_{name}", value)
    extraction._parts.cache_clear()
    try:
        extraction.write_timestamps({TABLE: EARLY})
        assert extraction.read_timestamps() == {TABLE: EARLY}
        assert [row["id"] for row in extraction.collect_rows(TABLE, EARLY)] == [2]
    finally:
        extraction._parts().source.close()
        extraction._parts.cache_clear()
