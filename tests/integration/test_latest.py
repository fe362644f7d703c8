"""`tidelog latest`: a table goes through the lake into a file, and what is in the file is the table."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.conftest import Aws, CreateDatabase, make_lake
from tests.integration.test_types import VALUES, create_types, readable
from tests.lines import lost_rows
from tests.tide import Database, Tide
from tidelog.errors import InvalidSetting, UnknownColumn, UnknownTable
from tidelog.quoting import identifier, literal
from tidelog.read import Lake
from tidelog.tables import TableName
from tidelog_cli.main import app
from tidelog_sandbox import shop

FORMATS = ("parquet", "csv", "jsonl")


@dataclass
class Export:
    """A file that `tidelog latest` has written of a table, and what it said."""

    database: Database
    path: Path
    said: Any = None
    remarks: dict[str, str] = field(default_factory=dict)

    def lines(self, table: str) -> Sequence[bytes]:
        """Return its rows as lines that `json_populate_record` takes."""
        nested = set(
            self.database.column(
                "SELECT attname FROM pg_attribute a JOIN pg_type t ON t.oid = atttypid "
                f"WHERE attrelid = '{TableName.parse(table).sql}'::regclass AND attnum > 0 "
                "AND typcategory IN ('A', 'C')"
            )
        )
        jsons = {column["name"] for column in self.said["columns"] if column["type"] in ("json", "jsonb")}
        if self.path.suffix == ".jsonl":
            return self.path.read_bytes().split(b"\n")[:-1]
        rows = self._of_parquet() if self.path.suffix == ".parquet" else self._of_csv()
        return [
            b"{%b}"
            % b",".join(
                b"%b:%b" % (json.dumps(name).encode(), _json(value, nested=name in nested, is_json=name in jsons))
                for name, value in row.items()
            )
            for row in rows
        ]

    def _of_csv(self) -> Iterator[dict[str, Any]]:
        """As PostgreSQL's own COPY reads it."""
        columns = ", ".join(f"{identifier(column['name'])} text" for column in self.said["columns"])
        with self.database.session() as session, self.path.open("rb") as file:
            session.run(f"CREATE TEMP TABLE texts ({columns})")
            session.run("COPY texts FROM STDIN (FORMAT csv, HEADER match)", stream=file)
            for (row,) in session.run("SELECT row_to_json(t)::text FROM texts t"):
                yield json.loads(row)

    def _of_parquet(self) -> Iterator[dict[str, Any]]:
        """With the types that it says that it has."""
        import duckdb  # noqa: PLC0415 - what is there when `aws` freezes it is taken for a leak

        with duckdb.connect() as connection:
            found = connection.execute(f"DESCRIBE SELECT * FROM read_parquet({literal(str(self.path))})").fetchall()
            told = {column["name"]: column["written_as"] for column in self.said["columns"]}
            assert {name: kind for name, kind, *_ in found} == told
            fields = ", ".join(postgres_text(f'"~r".{identifier(name)}', kind) for name, kind in told.items())
            query = connection.execute(f'SELECT {fields} FROM read_parquet({literal(str(self.path))}) "~r"')
            for row in query.fetchall():
                yield dict(zip(told, row, strict=True))


def postgres_text(value: str, kind: str) -> str:
    """Return SQL that prints a value of DuckDB, or the elements of a list, as PostgreSQL reads them."""
    if kind.endswith("[]"):
        return f"list_transform({value}, lambda v: {postgres_text('v', kind[:-2])})"
    if kind == "BLOB":
        return f"'\\x' || hex({value})"
    return (
        rf"regexp_replace({value}::VARCHAR, '^(\S+) \(BC\)(.*)', '\1\2 BC')"
        if kind[:4] in ("DATE", "TIME")
        else f"{value}::VARCHAR"
    )


def _json(value: Any, *, nested: bool, is_json: bool) -> bytes:
    """Return what stands in a line: of arrays and composites the JSON in the text, if there is."""
    if isinstance(value, str) and is_json:
        return value.encode()
    if isinstance(value, str) and nested and value != "{}" and value.startswith(("[", "{")):
        try:
            json.loads(value, parse_int=str)
        except ValueError:
            pass
        else:
            return value.encode()
    return json.dumps(value).encode()


Latest = Callable[..., Export]


@pytest.fixture
def latest(tmp_path: Path) -> Latest:
    """Run `tidelog latest` on a bucket, and return the file."""

    def run(tide: Tide, table: str, form: str, *options: str) -> Export:
        path = tmp_path / f"{TableName.parse(table).path}.{form}"
        command = ["latest", table, "--to", str(path), "--lake", f"s3://{tide.lake.bucket}", "--json", *options]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        said = json.loads(done.stdout)
        remarks = {column["name"]: column["remark"] for column in said["columns"] if column["remark"]}
        assert [line.split(" is text: ")[0] for line in done.stderr.splitlines()] == list(remarks)
        assert [path.name for path in tmp_path.iterdir()] == [path.name]
        return Export(tide.database, path, said, remarks)

    return run


def shapes(name: str) -> dict[str, tuple[str, list[str]]]:
    """Return columns of a type, by itself and within others, and the values that each takes."""
    kind = f'pg_catalog."{name}"' if name == "char" else name
    values = [f"{literal(value)}::{kind}" for value in VALUES[name]]
    one, t = values[-1], "".join(filter(str.isalnum, name))
    columns = {
        "one": (kind, values),
        "many": (f"{kind}[]", [f"ARRAY[{','.join(values)}, NULL]", f"ARRAY[[{one}], [{one}]]", "'{}'"]),
        "bounds": (f"{kind}[]", [f"array_fill({one}, '{{2}}', '{{0}}')"]),
        "domain": (f"{t}_domain", values),
        "flat": (f"{t}_flat", [f"ROW({one}, '\n')", "ROW(NULL, NULL)"]),
        "pair": (f"{t}_pair", [f"ROW({one}, ARRAY[{one}, NULL])"]),
    }
    # The server's json_populate_record can't make the first; of the others a text does not say if it was a string.
    if name in ("aclitem", "json", "jsonb"):
        del columns["domain"]
    return {f"{t}_{shape}": of for shape, of in columns.items()}


@pytest.fixture(scope="module")
def every(create_database: CreateDatabase, aws: Aws) -> Iterator[Tide]:
    """A table with a column of every type in every shape, with every odd value, ingested."""
    with create_database() as database:
        create_types(database)
        columns = {"id": "int GENERATED ALWAYS AS IDENTITY PRIMARY KEY"}
        values: dict[str, list[str]] = {}
        for name in readable(database):
            kind, t = (f'pg_catalog."{name}"' if name == "char" else name), "".join(filter(str.isalnum, name))
            database.run(
                f"CREATE DOMAIN {t}_domain AS {kind}",
                f"CREATE TYPE {t}_flat AS (x {kind}, z text)",
                f"CREATE TYPE {t}_pair AS (x {kind}, y {kind}[])",
            )
            for column, (of, taken) in shapes(name).items():
                columns[column], values[column] = of, taken
        database.run(f"CREATE TABLE every ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")
        for row in zip_longest(*values.values(), fillvalue="NULL"):
            database.run(f"INSERT INTO every ({', '.join(values)}) VALUES ({', '.join(row)})")
        tide = Tide(database, make_lake(aws.s3, aws.ssm))
        tide.ingest("public.every")
        yield tide


@pytest.mark.parametrize("form", FORMATS)
def test_every_value_of_every_type_comes_back_from_a_file(every: Tide, latest: Latest, form: str) -> None:
    """In every shape, and the file's columns have the types that are said."""
    file = latest(every, "public.every", form)
    assert lost_rows(file, "public.every") == []
    if form == "parquet":
        assert "values do not fit DECIMAL" not in file.remarks.get("money_one", "")
        assert file.remarks["interval_one"] == "nothing carries interval exactly"
        assert file.remarks["date_one"] == "2 values do not fit DATE"


TYPED = {
    "small": ("smallint", "SMALLINT"),
    "whole": ("integer", "INTEGER"),
    "large": ("bigint", "BIGINT"),
    "price": ("numeric(10,2)", "DECIMAL(10,2)"),
    "exact": ("numeric(38,18)", "DECIMAL(38,18)"),
    "rounded": ("numeric(3,-2)", "DECIMAL(5,0)"),
    "tiny": ("numeric(2,4)", "DECIMAL(4,4)"),
    "half": ("real", "FLOAT"),
    "float": ("double precision", "DOUBLE"),
    "yes": ("boolean", "BOOLEAN"),
    "day": ("date", "DATE"),
    "clock": ("time", "TIME"),
    "moment": ("timestamp(3)", "TIMESTAMP"),
    "instant": ("timestamptz", "TIMESTAMP WITH TIME ZONE"),
    "id": ("uuid PRIMARY KEY DEFAULT gen_random_uuid()", "UUID"),
    "raw": ("bytea", "BLOB"),
    "words": ("varchar(20)", "VARCHAR"),
    "j": ("json", "JSON"),
    "jb": ("jsonb", "JSON"),
    "cash": ("money", "DECIMAL(19,2)"),
    "numbers": ("int[]", "INTEGER[]"),
    "prices": ("numeric(38,18)[]", "DECIMAL(38,18)[]"),
    "floats": ("float8[]", "DOUBLE[]"),
    "texts": ("text[]", "VARCHAR[]"),
    "days": ("date[]", "DATE[]"),
    "flags": ("bool[]", "BOOLEAN[]"),
    "huge": ("numeric(39,0)", "VARCHAR"),
    "free": ("numeric", "VARCHAR"),
    "span": ("interval", "VARCHAR"),
    "zoned": ("timetz", "VARCHAR"),
    "A": ("int", "INTEGER"),
    "a\"b,'c": ("int", "INTEGER"),
}
FIRST = {
    "small": "-1",
    "whole": "2147483647",
    "large": "9223372036854775807",
    "price": "-99999999.99",
    "exact": "12345678901234567890.123456789012345678",
    "rounded": "1200",
    "tiny": "0.0012",
    "half": "0.1",
    "float": "5e-324",
    "yes": "true",
    "day": "0044-03-15 BC",
    "clock": "23:59:59.999999",
    "moment": "200000-01-01 00:00:00.001",
    "instant": "0044-03-15 12:00 BC",
    "raw": r"\x00ff",
    "words": "é\"',\r\n\\",
    "j": '{"a": 1.10,  "a": 1e400}',
    "jb": '{"a": 123456789012345678.1230}',
    "cash": "-92233720368547758.08",
    "numbers": "{1,NULL}",
    "prices": "{1.10,12345678901234567890.123456789012345678}",
    "floats": "{NaN,-Infinity,0.1}",
    "texts": '{"a,b",NULL,"null","[",""}',
    "days": "{2026-11-23,0044-03-15 BC}",
    "flags": "{t,NULL}",
    "huge": "1" + "0" * 38,
    "free": "1.10",
    "span": "1 day",
    "zoned": "12:00+02",
}
SECOND = {"words": "", "whole": "0", "float": "NaN", "numbers": "{}", "texts": "{}", "floats": "{}", "jb": '"text"'}


def test_a_type_that_carries_every_value_is_the_columns_type(tide: Tide, latest: Latest) -> None:
    """Down to the last digit; the others stay text."""
    columns = ", ".join(f"{identifier(name)} {kind}" for name, (kind, _) in TYPED.items())
    tide.run(f"CREATE TABLE t ({columns})", "INSERT INTO t DEFAULT VALUES")
    for row in (FIRST, SECOND):
        tide.run(f"INSERT INTO t ({', '.join(row)}) VALUES ({', '.join(map(literal, row.values()))})")
    tide.ingest()
    file = latest(tide, "public.t", "parquet")
    kinds = [column["written_as"] for column in file.said["columns"]]
    assert dict(zip(TYPED, kinds, strict=True)) == {name: kind for name, (_, kind) in TYPED.items()}
    assert set(file.remarks) == {"huge", "free", "span", "zoned"}
    assert lost_rows(file, "public.t") == []


@pytest.fixture(scope="module")
def traded(create_database: CreateDatabase, aws: Aws) -> Iterator[Tide]:
    """The sample, a shop, after a day of trade."""
    with create_database() as database:
        with database.session() as owner:
            shop.create(owner)
        tide = Tide(database, make_lake(aws.s3, aws.ssm))
        for day in range(2):
            for name in tables_of(database):
                tide.ingest(f"public.{name}")
            with database.session() as owner:
                if day < 1:
                    shop.do_business(owner, day)
        yield tide


def tables_of(database: Database) -> list[str]:
    """Return the names of a database's own tables."""
    return database.column(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
    )


def test_a_shop_comes_back_from_files(traded: Tide, latest: Latest) -> None:
    """All of its tables, with types and without a remark."""
    names = [f"public.{name}" for name in tables_of(traded.database)]
    assert len(names) == 11
    for name in names:
        file = latest(traded, name, "jsonl" if name == "public.payment" else "parquet")
        assert (file.remarks, lost_rows(file, name)) == ({}, [])
        file.path.unlink()


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_shop_that_is_loaded_into_another_database_is_the_same(
    traded: Tide, latest: Latest, form: str, database: Database
) -> None:
    """By EXCEPT ALL both ways, types included: those of the schema document for CSV, those of the file for Parquet."""
    for name in tables_of(traded.database):
        file = latest(traded, f"public.{name}", form)
        types = dict(traded.database.run(_TYPES.format(f"public.{name}")))
        told = {each["name"]: each["type"] if form == "csv" else postgres_type(each) for each in file.said["columns"]}
        assert told == (types if form == "csv" else {column: _LOOSE.sub("", kind) for column, kind in types.items()})
        for place, kinds, text in (("source", types, rows_of(traded.database, name)), ("lake", told, csv_of(file))):
            columns = ", ".join(f"{identifier(column)} {kind}" for column, kind in kinds.items())
            database.run(f"CREATE SCHEMA IF NOT EXISTS {place}", f"CREATE TABLE {place}.{name} ({columns})")
            with database.session() as session:
                session.run(f"COPY {place}.{name} FROM STDIN (FORMAT csv, HEADER match)", stream=text)
        assert database.one(f"SELECT count(*) FROM lake.{name}") > 0
        for one, other in (("source", "lake"), ("lake", "source")):
            assert database.run(f"TABLE {one}.{name} EXCEPT ALL TABLE {other}.{name} LIMIT 3") == []
        file.path.unlink()


_TYPES = """SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
            WHERE attrelid = '{}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""
_LOOSE = re.compile(r"(?<=character varying)\(\d+\)|(?<=timestamp)\(\d\)")
"""What a type of Parquet does not say: how long a text may be, how exact a time."""


def postgres_type(column: dict[str, str]) -> str:
    """Return what PostgreSQL calls a column's type in Parquet."""
    kind = column["written_as"]
    if kind == "VARCHAR":  # It has one text.
        return "character varying" if column["type"].startswith("character varying") else "text"
    return kind.lower().replace("decimal", "numeric")


def rows_of(database: Database, table: str) -> io.BytesIO:
    """Return the rows of a table as CSV."""
    text = io.BytesIO()
    with database.session() as session:
        session.run(f"COPY {table} TO STDOUT (FORMAT csv, HEADER)", stream=text)
    text.seek(0)
    return text


def csv_of(file: Export) -> io.BytesIO:
    """Return the rows of a file as CSV, as whoever reads Parquet prints them."""
    import duckdb  # noqa: PLC0415 - what is there when `aws` freezes it is taken for a leak

    if file.path.suffix == ".parquet":
        copy = file.path.with_suffix(".copy")
        with duckdb.connect() as connection:
            connection.execute(f"COPY (FROM {literal(str(file.path))}) TO {literal(str(copy))} (FORMAT csv, HEADER)")
        text = copy.read_bytes()
        copy.unlink()
        return io.BytesIO(text)
    return io.BytesIO(file.path.read_bytes())


@pytest.mark.parametrize("form", FORMATS)
def test_lines_of_before_a_table_was_altered_come_in_its_columns(tide: Tide, latest: Latest, form: str) -> None:
    """Renamed, swapped, dropped and added under an old name; and by name where the table was created anew."""
    tide.run(
        "CREATE TABLE t (id int PRIMARY KEY, a text, b text, c int)",
        "INSERT INTO t VALUES (1, 'a1', 'b1', 1), (9, 'a9', 'b9', 9)",
    )
    tide.ingest()
    tide.run(
        "DELETE FROM t WHERE id = 9",
        "ALTER TABLE t RENAME a TO x; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME x TO b",
        "ALTER TABLE t RENAME id TO no; ALTER TABLE t DROP c; ALTER TABLE t ADD c text, ADD d date",
        "INSERT INTO t VALUES (2, 'a2', 'b2', 'c2', '2026-11-23')",
    )
    tide.ingest()
    file = latest(tide, "public.t", form)
    tide.run("INSERT INTO t VALUES (9, 'a9', 'b9')")  # What was deleted keeps its last version.
    assert lost_rows(file, "public.t") == []
    table = Lake.open(f"s3://{tide.lake.bucket}", tide.lake.s3).table("public.t")
    assert {row["no"]: row for row in table.latest()}[9] == {"no": 9, "b": "a9", "a": "b9", "c": None, "d": None}
    tide.run(
        "DROP TABLE t",
        "CREATE TABLE t (d date, b text, no int PRIMARY KEY, z int)",
        "INSERT INTO t VALUES (NULL, 'new', 2, 5)",
    )
    tide.ingest()
    file = latest(tide, "public.t", form, "--force")
    tide.run("INSERT INTO t VALUES (NULL, 'a1', 1), (NULL, 'a9', 9)")
    assert lost_rows(file, "public.t") == []
    tide.ingest()


def test_a_table_without_a_key_needs_columns_that_tell_rows_apart(tide: Tide, latest: Latest, tmp_path: Path) -> None:
    """NULL is a value there, and numbers that differ in zeros at their end only are the same."""
    tide.run("CREATE TABLE t (a numeric, b int)", "INSERT INTO t VALUES (1.10, NULL), (NULL, 1), (2, 2)")
    tide.ingest()
    tide.run("UPDATE t SET a = 1.1, b = 5 WHERE a = 1.10", "UPDATE t SET b = 3 WHERE a IS NULL")
    tide.ingest()
    file = latest(tide, "public.t", "csv", "--key", "a")
    assert lost_rows(file, "public.t") == []
    lake = Lake.open(f"s3://{tide.lake.bucket}", tide.lake.s3)
    assert len(list(lake.table("public.t").latest(key=["a"]))) == 3
    with pytest.raises(InvalidSetting, match=r"no primary key\. Name the columns that do"):
        next(lake.table("public.t").latest())
    refusals: tuple[tuple[tuple[str, ...], type[Exception], str], ...] = (
        ((), InvalidSetting, "it is there already"),
        (("--force",), InvalidSetting, "no primary key"),
        (("--force", "--key", "x"), UnknownColumn, "its columns are a, b"),
    )
    for options, error, said in refusals:
        command = ["latest", "public.t", "--to", str(file.path), "--lake", f"s3://{tide.lake.bucket}", *options]
        with pytest.raises(error, match=said):
            CliRunner().invoke(app, command, catch_exceptions=False)
    command = ["latest", "public.t", "--key", "a", "--to", "/proc/x.csv", "--lake", f"s3://{tide.lake.bucket}"]
    with pytest.raises(InvalidSetting, match=r"^write /proc/x\.csv: .*Name a file in a folder that you may write to"):
        CliRunner().invoke(app, command, catch_exceptions=False)
    with pytest.raises(UnknownTable, match="no ledger"):
        lake.table("public.nothing")
    assert [path.name for path in tmp_path.iterdir()] == [file.path.name]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_json_that_few_readers_take_and_keys_of_json_come_too(tide: Tide, latest: Latest, form: str) -> None:
    """Half a surrogate pair, brackets in thousands; JSON's null as a key is a value."""
    tide.run(
        "CREATE TABLE t (id jsonb PRIMARY KEY, v json)",
        """INSERT INTO t VALUES ('null', '"\\ud800"'), ('true', (repeat('[', 2000) || repeat(']', 2000))::json)""",
    )
    tide.ingest()
    assert latest(tide, "public.t", form).said["rows"] == 2
