"""`tidelog ddl`: an engine reads the table where it lies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlglot
from typer.testing import CliRunner

from tests.integration.test_latest import FIRST, SECOND, TYPED, Export
from tests.lines import lost_rows
from tests.tide import Tide
from tidelog.errors import InvalidSetting, UnknownColumn
from tidelog.quoting import identifier, literal
from tidelog_cli.main import app

HOSTILE = 'say "it\'s"\n; DROP TABLE `x`; -- \\'


@pytest.fixture
def typed(tide: Tide, tmp_path: Path) -> str:
    """The table of all types, altered once, copied from its bucket into a folder with an odd name."""
    columns = ", ".join(f"{identifier(name)} {kind}" for name, (kind, _) in TYPED.items())
    tide.run(f"CREATE TABLE t ({columns})", "INSERT INTO t DEFAULT VALUES", "INSERT INTO t (large) VALUES (5)")
    for row in (FIRST | {"j": '{"a":1.10,"a":1e400}'}, SECOND):  # White space in json is not kept here.
        tide.run(f"INSERT INTO t ({', '.join(row)}) VALUES ({', '.join(map(literal, row.values()))})")
    tide.ingest()
    tide.run(
        f"ALTER TABLE t ADD {identifier(HOSTILE)} text",
        f"UPDATE t SET {identifier(HOSTILE)} = 'x', large = 6 WHERE large = 5",
    )
    tide.ingest()
    root = tmp_path / "a lake's [1]*"
    for key in tide.lake.keys(""):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(tide.lake.body(key))
    return str(root)


def ddl(*options: str) -> list[str]:
    """Run `tidelog ddl`; return the statements."""
    done = CliRunner().invoke(app, ["ddl", "public.t", "--json", *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    made: list[str] = json.loads(done.stdout)
    return made


def test_duckdb_sees_the_table_in_a_folder(tide: Tide, typed: str, tmp_path: Path) -> None:
    """Every digit of every type, the latest version of each row, and the lines behind it."""
    import duckdb  # noqa: PLC0415 - what is there when `aws` freezes it is taken for a leak

    with duckdb.connect() as connection:
        for statement in ddl("--engine", "duckdb", "--lake", typed):
            connection.execute(statement)
        assert connection.execute("SELECT count(*), count(DISTINCT position) FROM public_t_lines").fetchall() == [
            (5, 2)
        ]
        connection.execute(f"COPY public_t TO {literal(str(tmp_path / 't.parquet'))} (FORMAT parquet)")
        shown = connection.execute("DESCRIBE public_t").fetchall()
    kinds = [*(kind for _, kind in TYPED.values()), "VARCHAR"]
    assert [kind for _, kind, *_ in shown] == kinds
    said = {
        "columns": [
            {"name": name, "type": TYPED.get(name, ("", ""))[0], "written_as": kind} for name, kind, *_ in shown
        ]
    }
    assert lost_rows(Export(tide.database, tmp_path / "t.parquet", said), "public.t") == []


def test_what_is_to_stay_text_is_the_text_of_the_line(tide: Tide, tmp_path: Path) -> None:
    """Of documents and arrays too, to the last digit."""
    import duckdb  # noqa: PLC0415 - as above

    columns = {
        "id": ("bigint", "9007199254740993"),
        "price": ("numeric", "1.10"),
        "meta": ("jsonb", '{"i": 1, "n": [1, 2.50, "3"], "x": null}'),
        "whole": ("int[]", "[1,2,null]"),
        "square": ("int[]", "[[1,2],[3,4]]"),
        "exact": ("numeric[]", "[12345678901234567890.12]"),
        "texts": ("text[]", '["1","a"]'),
    }
    tide.run(f"CREATE TABLE t ({', '.join(f'{name} {kind}' for name, (kind, _) in columns.items())}, PRIMARY KEY (id))")
    tide.run(
        f"INSERT INTO t VALUES ({columns['id'][1]}, 1.10, {literal(columns['meta'][1])}, '{{1,2,NULL}}', "
        "'{{1,2},{3,4}}', '{12345678901234567890.12}', '{1,a}')"
    )
    tide.ingest()
    for key in tide.lake.keys(""):
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(tide.lake.body(key))
    texts = [option for name in columns for option in ("--text", name)]
    with duckdb.connect() as connection:
        for statement in ddl("--engine", "duckdb", "--lake", str(tmp_path), *texts):
            connection.execute(statement)
        [row] = connection.execute("FROM public_t").fetchall()
    assert dict(zip(columns, row, strict=True)) == {
        name: text.replace(": ", ":").replace(", ", ",") for name, (_, text) in columns.items()
    }


@pytest.mark.parametrize("engine", ["duckdb", "athena", "snowflake", "bigquery", "spark"])
def test_what_an_engine_is_given_is_its_sql(tide: Tide, typed: str, engine: str) -> None:
    """Whatever the columns are called, each view is one statement with all of them."""
    made = ddl("--engine", engine, "--lake", f"s3://{tide.lake.bucket}", "--text", "price")
    for statement in made:
        if "STAGE" not in statement and not statement.startswith(("INSTALL", "LOAD", "CREATE SECRET")):
            assert len(sqlglot.parse(statement, dialect=engine)) == 1
    latest = sqlglot.parse_one(made[-1], dialect=engine)
    assert isinstance(latest, sqlglot.exp.Create)
    assert len(latest.expression.selects) == len(TYPED) + 1
    assert any("/data/public.t/" in statement for statement in made)
    if engine != "duckdb":
        with pytest.raises(InvalidSetting, match=r"can't read the folder .* Name a bucket"):
            ddl("--engine", engine, "--lake", typed)
    with pytest.raises(UnknownColumn, match="its columns are small, whole"):
        ddl("--engine", engine, "--lake", f"s3://{tide.lake.bucket}", "--text", "nothing")
