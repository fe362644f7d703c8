"""Lines of odd tables, in odd databases, from oddly configured servers: one per row, each giving back its row."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable
from itertools import cycle

import pytest

from tests.conftest import CreateDatabase
from tests.lines import lost_rows
from tests.tide import Lake, Tide
from tidelog.errors import UnreadableData
from tidelog.quoting import identifier, literal
from tidelog.tables import TableName

ODD_NAMES = [
    "t", "~t", "~r", "r", "null", "NULL", "xmin_", "select", 'a"b', "it's", "a\nb", "a\tb\r", "\\", "\x01\x02", "\x7f",
    "\u2028", "ä 👩‍👩‍👧", "{}", "%s", ":name", "$1", "a,b", " ", "A", "a", "row_to_json", "data", "a.b", "é", "e\u0301",
]  # fmt: skip


def test_columns_may_have_any_name(tide: Tide) -> None:
    """Names that SQL, JSON, COPY, the driver or the query itself could take for something else."""
    columns = ", ".join(f"{identifier(name)} int" for name in ODD_NAMES)
    tide.run(f"CREATE TABLE t ({columns})", f"INSERT INTO t VALUES ({', '.join(map(str, range(len(ODD_NAMES))))})")
    tide.ingest()
    [line] = tide.lines()
    assert list(json.loads(line).items()) == [(name, number) for number, name in enumerate(ODD_NAMES)]
    assert line.decode() == tide.database.one('SELECT row_to_json("~r".*)::text FROM t "~r"')
    assert lost_rows(tide, "public.t") == []


def test_a_composite_column_named_as_an_alias_is_only_that_column(tide: Tide) -> None:
    """PostgreSQL takes a whole row and a column of its name for each other."""
    tide.run("CREATE TYPE pair AS (x int, y int)")
    for name in ODD_NAMES:
        quoted, table = identifier(name), str(TableName("public", name))
        tide.run(f"CREATE TABLE {quoted} (id int, {quoted} pair)", f"INSERT INTO {quoted} VALUES (1, (2, 3))")
        tide.ingest(table)
        assert tide.rows(table) == [{"id": 1, name: {"x": 2, "y": 3}}]


def test_a_table_without_columns_has_an_empty_object_per_row(tide: Tide) -> None:
    """Such tables exist, and their rows count."""
    tide.run("CREATE TABLE t ()", "INSERT INTO t DEFAULT VALUES", "INSERT INTO t DEFAULT VALUES")
    assert tide.ingest().rows == 2
    assert tide.lines() == [b"{}", b"{}"]


@pytest.mark.parametrize("width", [1, 800, 801, 1600])
def test_a_table_may_have_as_many_columns_as_postgresql_allows(tide: Tide, width: int) -> None:
    """Which is more than the half of what a select list may hold."""
    kinds = {
        "int": "1",
        "bool": "true",
        "text": "'\n\"'",
        "jsonb": "'1'",
        "date": "'infinity'",
        "smallint[]": "'{1}'",
        "money": "1.5",
    }
    names = {f"c{number}": kind for number, kind in zip(range(width), cycle(kinds), strict=False)}
    tide.run(
        f"CREATE TABLE t ({', '.join(f'{name} {kind}' for name, kind in names.items())})",
        "INSERT INTO t DEFAULT VALUES",
    )
    filled = [*names][:500] + [*names][500:][-1:]  # more do not fit on a page
    tide.run(f"INSERT INTO t ({', '.join(filled)}) VALUES ({', '.join(kinds[names[name]] for name in filled)})")
    tide.ingest()
    assert [list(row) for row in tide.rows()] == [list(names)] * 2
    assert tide.rows()[0] == dict.fromkeys(names)
    assert lost_rows(tide, "public.t") == []


def test_generated_and_dropped_columns(tide: Tide) -> None:
    """A stored or virtual generated column is there with its value, a dropped one is not."""
    tide.run(
        "CREATE TABLE t (gone int, id int, stored int GENERATED ALWAYS AS (id * 2) STORED, "
        "virtual int GENERATED ALWAYS AS (id * 3) VIRTUAL, also_gone text, own int GENERATED ALWAYS AS IDENTITY)",
        "INSERT INTO t (gone, id) VALUES (1, 5)",
        "ALTER TABLE t DROP gone, DROP also_gone, ADD late text DEFAULT 'constant'",
    )
    tide.ingest()
    assert tide.rows() == [{"id": 5, "stored": 10, "virtual": 15, "own": 1, "late": "constant"}]
    assert lost_rows(tide, "public.t") == []


def test_tables_may_have_any_name(tide: Tide) -> None:
    """Each has objects of its own; no name is mistaken for a path."""
    names = [
        TableName(schema, name)
        for schema in ("public", "a.b", "..")
        for name in (".", "b.c", 'q"/\\', "x y%2F", "é" * 31)
    ]
    tide.run('CREATE SCHEMA "a.b"', 'CREATE SCHEMA ".."')
    for number, name in enumerate(names):
        tide.run(f"CREATE TABLE {name.sql} (id int)", f"INSERT INTO {name.sql} VALUES ({number})")
        tide.ingest(str(name))
    assert [tide.rows(str(name)) for name in names] == [[{"id": number}] for number in range(len(names))]
    assert set(tide.tables()) == set(map(str, names))
    assert dict(tide.parameters.read_all()).keys() == set(names)


CONFIGURATIONS = [
    "DateStyle = 'SQL, DMY'", "DateStyle = 'German'", "TimeZone = 'America/St_Johns'", "IntervalStyle = 'sql_standard'",
    "bytea_output = 'escape'", "extra_float_digits = -15", "search_path = mine, public", "xmloption = 'document'",
    "lc_monetary = 'C.UTF-8'", "standard_conforming_strings = off", "client_encoding = 'LATIN1'", "row_security = on",
    "default_transaction_isolation = 'read committed'", "quote_all_identifiers = on", "array_nulls = off",
    "backslash_quote = on", "default_transaction_read_only = on", "enable_seqscan = off",
]  # fmt: skip
ODD_OUTPUT = r"""
CREATE TABLE t AS SELECT now() AS at, current_date AS day, interval '1 year -2 days 3 hours' AS span, 0.1::float8 AS f,
  1.1::float4 AS g, '\x00ff5c'::bytea AS b, '12.34'::money AS m, 'mine.odd'::regclass AS c, 'Ä\''"'::text AS x,
  '12:00+05:30'::timetz AS clock, tstzrange(now(), null) AS r, ARRAY[NULL, 'NULL', 'a\"']::text[] AS a
"""


def test_how_server_and_role_are_configured_does_not_change_a_byte(tide: Tide, role: str) -> None:
    """Defaults of the database and of the role, all of them odd at once."""
    tide.run(
        "CREATE SCHEMA mine",
        "CREATE TABLE mine.odd ()",
        ODD_OUTPUT,
        f"GRANT SELECT ON t TO {role}",
    )
    plain, odd = tide.database.source(role), tide.database.source(role)
    tide.ingest(source=plain)
    before = tide.lines()
    tide.run(
        *(f"ALTER DATABASE {tide.database.name} SET {setting}" for setting in CONFIGURATIONS[::2]),
        *(f"ALTER ROLE {role} IN DATABASE {tide.database.name} SET {setting}" for setting in CONFIGURATIONS[1::2]),
        "UPDATE t SET at = at",
    )
    assert tide.ingest(source=odd).rows == 1
    assert tide.lines() == before * 2


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252", "EUC_JP"])
def test_lines_are_utf8_whatever_the_database_is_encoded_in(
    create_database: CreateDatabase, lake: Lake, encoding: str
) -> None:
    """Names as well as values."""
    word = "日本" if encoding == "EUC_JP" else "é"
    with create_database(f"ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C'") as database:
        tide = Tide(database, lake)
        tide.run(f'CREATE TABLE "{word}" ("{word}" text)', f"INSERT INTO \"{word}\" VALUES ('{word}')")
        tide.ingest(f"public.{word}")
        assert tide.lines(f"public.{word}") == [
            json.dumps({word: word}, ensure_ascii=False, separators=(",", ":")).encode()
        ]
        tide.check(f"public.{word}")


@pytest.mark.parametrize(("encoding", "bad"), [("SQL_ASCII", r"\xff"), ("WIN1252", r"\x81")])
def test_bytes_that_are_no_text_are_an_error_that_names_the_remedy(
    create_database: CreateDatabase, lake: Lake, encoding: str, bad: str
) -> None:
    """Nothing of the table is visible then; it is taken as soon as the row is mended."""
    with create_database(f"ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C'") as database:
        tide = Tide(database, lake)
        tide.run("CREATE TABLE t (id int, x text)", "INSERT INTO t VALUES (1, 'fine')")
        tide.run(f"INSERT INTO t VALUES (2, convert_from('{bad}'::bytea, '{encoding}'))")
        with pytest.raises(UnreadableData, match=r"public\.t: .*SQLSTATE 22.*mend the rows"):
            tide.ingest()
        assert lake.keys("data/") == lake.keys("ledger/") == lake.uploads() == []
        tide.run("UPDATE t SET x = 'mended' WHERE id = 2")
        assert tide.ingest().rows == 2
        tide.check()


def random_text(draw: random.Random) -> str:
    """Draw characters of one byte and of several."""
    ranges = [(1, 128), (0xA0, 0xD800), (0x10000, 0x10FFFF)]
    return "".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(draw.randrange(20)))


def random_moment(draw: random.Random) -> str:
    """Draw a timestamp of four thousand years before or after Christ."""
    day = f"{draw.randrange(1, 4000):04}-0{draw.randrange(1, 10)}-{draw.randrange(10, 29)}"
    return f"{day} 0{draw.randrange(10)}:00:00.{draw.randrange(10**6):06}{draw.choice(['', ' BC'])}"


def random_document(draw: random.Random) -> str:
    """Draw a JSON object."""
    values = [draw.random(), None, draw.choice(["\n", "\\", "\x07"])]
    return json.dumps({"".join(draw.choices(string.printable, k=3)): values})


KINDS: dict[str, Callable[[random.Random], str]] = {
    "int": lambda draw: str(draw.randrange(-(2**31), 2**31)),
    "bool": lambda draw: draw.choice(["true", "false"]),
    "float8": lambda draw: repr(draw.choice([draw.random(), draw.gauss(0, 1e300), draw.gauss(0, 1e-300)])),
    "numeric": lambda draw: f"{draw.randrange(-(10**40), 10**40)}.{'0' * draw.randrange(3)}{draw.randrange(10**9)}",
    "text": random_text,
    "timestamptz": random_moment,
    "bytea": lambda draw: r"\x" + draw.randbytes(draw.randrange(20)).hex(),
    "jsonb": random_document,
    "inet": lambda draw: f"{draw.randrange(256)}.{draw.randrange(256)}.0.1/{draw.randrange(33)}",
    "interval": lambda draw: (
        f"{draw.randrange(-99, 99)} mons {draw.randrange(-99, 99)} days {draw.gauss(0, 1e6):.6f} s"
    ),
    "mood": lambda draw: draw.choice(["sad", "a,b"]),
    "pair": lambda draw: f'({draw.randrange(99)},"{draw.choice(["{1,2}", "{}", "[0:1]={3,NULL}"])}")',
}


@pytest.mark.parametrize("seed", range(4))
def test_random_records_read_back(tide: Tide, seed: int) -> None:
    """Of tables with columns of random types, every one also as an array with NULLs, dimensions and bounds."""
    draw = random.Random(seed)  # noqa: S311 - it has to be the same each time
    tide.run("CREATE TYPE mood AS ENUM ('sad', 'a,b')", "CREATE TYPE pair AS (x int, y int[])")
    kinds = [kind + draw.choice(["", "", "[]"]) for kind in draw.choices(list(KINDS), k=25)]
    tide.run(f"CREATE TABLE t ({', '.join(f'c{n} {kind}' for n, kind in enumerate(kinds))})")

    def value(kind: str) -> str:
        base = kind.removesuffix("[]")
        one = "NULL" if draw.random() < 0.2 else f"{literal(KINDS[base](draw))}::{base}"
        if base == kind or draw.random() < 0.1:
            return one if base == kind else "NULL"
        return draw.choice(
            [
                f"ARRAY[{one}, NULL]::{kind}",
                "'{}'",
                f"array_fill({one}::{base}, '{{1,2}}')",
                f"array_fill({one}::{base}, '{{2}}', '{{{draw.randrange(-3, 3)}}}')",
            ]
        )

    tide.run(*(f"INSERT INTO t VALUES ({', '.join(map(value, kinds))})" for _ in range(40)))
    assert tide.ingest().rows == 40
    assert lost_rows(tide, "public.t") == []
