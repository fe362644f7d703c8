"""Every PostgreSQL type and odd value: each line, given to `json_populate_record`, gives back the row.

Each base type is tried in every shape that a column can have: by itself, in arrays of every kind, in domains, in
composites, and in these in each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.conftest import Aws, CreateDatabase, make_lake
from tests.lines import lost_rows
from tests.tide import Database, Tide
from tidelog.quoting import literal

CONTROLS = "".join(map(chr, range(1, 32))) + "\x7f"
TEXTS = [
    "", " ", "null", "NULL", r"\.", r"\N", "\\", '"', "'", '\\"', "\n", "\r\n", "\t", CONTROLS, "\x01\x02",
    "a\x02,\x01b", "\x85\u2028\u2029\ufeff", "\ufffe\U0010ffff", "é𝄞👩‍👩‍👧", "e\u0301", "{}", "[]", "{1,2}", "(1,)",
    '{"a": 1}', "x" * 10_000,
]  # fmt: skip
FLOATS = ["0", "-0", "NaN", "Infinity", "-Infinity", "0.1", "1e20", "-1.5"]
TIMESTAMPS = [
    "epoch",
    "infinity",
    "-infinity",
    "2026-11-23 12:00:00.000001",
    "0044-03-15 12:00 BC",
    "4713-01-01 BC",
    "200000-01-01",
]

VALUES: dict[str, list[str]] = {
    "bool": ["true", "false"],
    "int2": ["-32768", "0", "32767"],
    "int4": ["-2147483648", "0", "2147483647"],
    "int8": ["-9223372036854775808", "9007199254740993", "9223372036854775807"],
    "float4": [*FLOATS, "1e-45", "3.4028235e38", "0.3"],
    "float8": [*FLOATS, "5e-324", "1.7976931348623157e308", "0.30000000000000004"],
    "numeric": [*FLOATS, "1.10", "1e-1000", "9" * 5000 + "." + "1" * 5000, "-1e131071"],
    "money": ["-92233720368547758.08", "0", "1234567.89"],
    "text": TEXTS,
    "varchar": TEXTS,
    "bpchar": ["", "  ", "a  ", "\n"],
    "char": ["", "a", '"', "\\", "\\200", "\\377"],
    "name": ["", "a b", '"' * 63],
    "bytea": ["", r"\x00ff01025c2e", r"\x" + "5c" * 1000],
    "bit": ["1", "0"],
    "varbit": ["", "0", "101" * 50],
    "date": ["epoch", "infinity", "-infinity", "2026-11-23", "0044-03-15 BC", "4713-01-01 BC", "200000-01-01"],
    "time": ["00:00", "24:00", "12:34:56.789012"],
    "timetz": ["00:00+00", "24:00-15:59", "12:34:56.789012+05:30:15"],
    "timestamp": TIMESTAMPS,
    "timestamptz": [*TIMESTAMPS, "2026-11-23 12:00+05:30"],
    "interval": [
        "0", "infinity", "-infinity", "1 year -2 mons 3 days -04:05:06.000007", "-178000000 years",
        "178956970 years 7 mons", "-1 mon +1 day -1 microsecond",
    ],
    "uuid": ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
    "json": [
        "1", '"null"', '{"a":\n[1,\t2],\r\n"a": {}}', "[ ]", "1.10", "1e400", '"' + "é" * 100 + '"',
        '[null, "\x7f"]', '{"a": 1, "a": 2}',
    ],
    "jsonb": ["1", '"null"', '{"a": [null, {"b": "\\n\\t\\u0001\u2028"}]}', "[]", "1.10", '"' + "x" * 10_000 + '"'],
    "jsonpath": ["$", '$."a\\nb"[*] ? (@ > 1)'],
    "xml": ["<a/>", '<?xml version="1.0"?><a>é\n</a>', "text only", "<a>1</a><b/>"],
    "inet": ["127.0.0.1", "10.1.2.3/8", "::1", "2001:db8::/32"],
    "cidr": ["10.0.0.0/8", "::/0"],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "point": ["(0,-0)", "(NaN,Infinity)", "(1e-300,0.1)"],
    "line": ["{1,-1,0}"],
    "lseg": ["[(0,0),(1,1)]"],
    "box": ["(2,2),(1,1)"],
    "path": ["[(0,0),(1,1)]", "((0,0),(1,1),(2,0))"],
    "polygon": ["((0,0),(1,1),(2,0))"],
    "circle": ["<(0,0),1.5>"],
    "tsvector": ["", "'a b':1A 'it''s':2 '\\\\':3"],
    "tsquery": ["", "'a b' & !'it''s':*A <-> 'c'"],
    "int4range": ["empty", "(,)", "[1,5)"],
    "int8range": ["empty", "[1,)"],
    "numrange": ["empty", "[1.10,2.0]", "(NaN,NaN]", "(,Infinity]"],
    "tsrange": ["empty", "[2026-11-23 12:00,infinity)", "(4713-01-01 BC,]"],
    "tstzrange": ["empty", "(-infinity,2026-11-23 12:00+02]"],
    "daterange": ["empty", "[2026-11-23,)", "[-infinity,infinity)"],
    "int4multirange": ["{}", "{[1,2),[5,)}"],
    "int8multirange": ["{}", "{(,)}"],
    "nummultirange": ["{}", "{[1.10,2.0]}"],
    "tsmultirange": ["{}", "{[2026-11-23 12:00,infinity)}"],
    "tstzmultirange": ["{}", "{(,2026-11-23 12:00+02]}"],
    "datemultirange": ["{}", "{[2026-11-23,2026-11-24)}"],
    "oid": ["0", "4294967295"],
    "xid": ["0", "4294967295"],
    "xid8": ["0", "18446744073709551615"],
    "cid": ["0", "4294967295"],
    "tid": ["(0,0)", "(4294967295,65535)"],
    "pg_lsn": ["0/0", "FFFFFFFF/FFFFFFFF"],
    "pg_snapshot": ["10:20:10,14,15"],
    "txid_snapshot": ["10:20:10,14,15"],
    "int2vector": ["", "1 2 -3"],
    "oidvector": ["", "1 4294967295"],
    "regclass": ["pg_class", "public.odd", "-", "4294967295"],
    "regtype": ["pg_catalog.int4", "timestamp with time zone", 'public."my type"[]', "-"],
    "regproc": ["now", "public.odd_function", "-"],
    "regprocedure": ["lower(text)", "public.odd_function(integer)"],
    "regoper": ["*=", "0"],
    "regoperator": ["+(integer,integer)", "0"],
    "regrole": ["postgres", "-"],
    "regnamespace": ["public", '"my schema"'],
    "regcollation": ['"C"', '"my schema"."my collation"'],
    "regconfig": ["english", '"my schema"."my config"'],
    "regdictionary": ["simple"],
    "refcursor": ["", "my cursor"],
    "aclitem": ["postgres=r*w/postgres", "=arwdDxtm/postgres"],
    '"my type"': ["sad", "it's \"ok\"", "a,b\\{}", "null"],
    "hstore": ["", '"a"=>"1", "b"=>NULL, "c\n"=>"\\"\\\\"'],
    "ltree": ["a.b.c"],
    "citext": ["ÄÖ", "null"],
    "vector": ["[1,-2.5,0]"],
    "cube": ["(1,2),(3,4)"],
}  # fmt: skip
# What only the server itself makes: no text can be put in.
INTERNAL = {
    "gtsvector", "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary", "pg_dependencies", "pg_mcv_list",
    "pg_ndistinct", "pg_node_tree",
}  # fmt: skip
EXTENSIONS = ("hstore", "ltree", "citext", "vector", "cube")


def create_types(database: Database) -> None:
    """Create the types that are no part of PostgreSQL, and what values of some types refer to."""
    database.run(
        *(f"CREATE EXTENSION {name}" for name in EXTENSIONS),
        "CREATE TYPE \"my type\" AS ENUM ('sad', 'it''s \"ok\"', 'a,b\\{}', 'null')",
        "CREATE TABLE odd ()",
        "CREATE FUNCTION odd_function(int) RETURNS int LANGUAGE sql RETURN 1",
        'CREATE SCHEMA "my schema"',
        'CREATE COLLATION "my schema"."my collation" FROM "C"',
        'CREATE TEXT SEARCH CONFIGURATION "my schema"."my config" (COPY = english)',
    )


def readable(database: Database) -> list[str]:
    """Return the types that the server can read: one may have been built without libxml."""
    has_xml = database.one("SELECT count(*) FROM pg_config WHERE setting LIKE '%--with-libxml%'")
    return [name for name in VALUES if name != "xml" or has_xml]


@pytest.fixture(scope="module")
def types(create_database: CreateDatabase, aws: Aws) -> Iterator[Tide]:
    """A database with some types of its own, for every test of this module."""
    with create_database() as database:
        create_types(database)
        yield Tide(database, make_lake(aws.s3, aws.ssm))


def test_no_type_of_the_server_is_left_out(types: Tide) -> None:
    """A type that a new version of PostgreSQL brings has to be tried, too."""
    known = types.database.column(
        "SELECT typname FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm') "
        "AND (typcategory <> 'A' OR typname ~ '^[^_].*vector$')"
    )
    assert set(known) - INTERNAL - set(VALUES) == set()


@pytest.mark.parametrize("name", VALUES)
def test_a_type_reads_back_in_every_shape(types: Tide, name: str) -> None:
    """By itself, in arrays of any dimension, bound and content, in domains, in composites, and in all these mixed."""
    kind = f'pg_catalog."{name}"' if name == "char" else name
    if name not in readable(types.database):
        pytest.skip("this server was built without libxml")
    values = [f"{literal(value)}::{kind}" for value in VALUES[name]]
    one, two = values[0], values[-1]
    t = "t_" + "".join(filter(str.isalnum, name))
    low, odd = f"array_fill({one}, '{{2}}', '{{0}}')", f"array_fill({two}, '{{2,1}}', '{{1,-7}}')"
    many = [f"ARRAY[{','.join(values)}, NULL]", f"ARRAY[[{one}, NULL], [{two}, {two}]]", "'{}'", "'{NULL}'", "NULL"]
    lists = f"ARRAY(SELECT x::{t}_list FROM (VALUES (ARRAY[{one}, {two}]), (NULL), ('{{}}')) v(x))"
    flats = f"ARRAY[ROW({one}, 'a')::{t}_flat, NULL, ROW(NULL, NULL)::{t}_flat]"
    shapes = {
        "scalar": (kind, [*values, "NULL"]),
        "many": (f"{kind}[]", many),
        "bounds": (f"{kind}[]", [low, odd]),
        "domain": (f"{t}_domain", [one, two, "NULL"]),
        "domains": (f"{t}_domain[]", [f"ARRAY[{one}, NULL]", f"array_fill({two}, '{{1}}', '{{3}}')"]),
        "list": (f"{t}_list", [f"ARRAY[{two}, NULL]", low, "'{}'", "NULL"]),
        "lists": (f"{t}_list[]", [lists]),
        "pair": (
            f"{t}_pair",
            [f"ROW({one}, ARRAY[{two}], 'a')", f"ROW(NULL, {low}, '\"')", "ROW(NULL, NULL, NULL)", "NULL"],
        ),
        "flat": (f"{t}_flat", [f"ROW({one}, '\n')", f"ROW({two}, NULL)", "ROW(NULL, 'null')"]),
        "flats": (f"{t}_flat[]", [flats, f"array_fill(ROW({two}, '')::{t}_flat, '{{1}}', '{{0}}')"]),
        "nested": (f"{t}_nested", [f"ROW(ROW({one}, 'b')::{t}_flat, ROW({two}, '{{NULL}}', 'c')::{t}_pair)"]),
        "whole": (f"{t}_whole", [f"ROW({one}, '}}')", "NULL"]),
    }
    if name == "aclitem":  # The server's own json_populate_record can't make a domain over it: it has no binary input.
        shapes = {shape: of for shape, of in shapes.items() if shape not in ("domain", "domains", "list", "lists")}
    types.run(
        f"CREATE DOMAIN {t}_domain AS {kind}",
        f"CREATE DOMAIN {t}_list AS {kind}[]",
        f"CREATE TYPE {t}_pair AS (x {kind}, y {kind}[], z text)",
        f"CREATE TYPE {t}_flat AS (x {kind}, z text)",
        f"CREATE TYPE {t}_nested AS (flat {t}_flat, pair {t}_pair)",
        f"CREATE DOMAIN {t}_whole AS {t}_flat",
        f"CREATE TABLE {t} ({', '.join(f'{shape} {column}' for shape, (column, _) in shapes.items())})",
        *(f"INSERT INTO {t} ({shape}) VALUES ({value})" for shape, (_, rows) in shapes.items() for value in rows),
    )
    types.ingest(f"public.{t}")
    assert lost_rows(types, f"public.{t}") == []


def test_what_json_cannot_say_is_known(types: Tide) -> None:
    """JSON null in a jsonb column reads back as SQL NULL; white space around a json value is not part of it.

    A json text with escapes is written as it is, though the server reads it back without those that it did not need,
    and an escaped NUL not at all.
    """
    types.run(
        "CREATE TABLE unsaid (id int, b jsonb, j json, bs jsonb[])",
        "INSERT INTO unsaid VALUES (1, 'null', 'null', '{\"null\",NULL}'), (2, '1', E'\\n {} \\r\\n', '{}')",
    )
    types.ingest("public.unsaid")
    assert [json.loads(line) for line in types.lines("public.unsaid")] == [
        {"id": 1, "b": None, "j": None, "bs": '{"null",NULL}'},
        {"id": 2, "b": 1, "j": {}, "bs": "{}"},
    ]
    types.run("CREATE TABLE escaped (j json)", "INSERT INTO escaped VALUES ('\"\\u0041\\u0000\"')")
    types.ingest("public.escaped")
    assert types.lines("public.escaped") == [b'{"j":"\\u0041\\u0000"}']


def test_rows_that_json_can_say_plainly_are_the_servers_own_json(types: Tide) -> None:
    """Byte for byte what `row_to_json` prints, wherever no type needs help."""
    plain = [
        name for name in VALUES if name not in ("money", "json", "xml", "hstore", "int2vector", "oidvector", "char")
    ]
    columns = {f"c_{''.join(filter(str.isalnum, name))}": name for name in plain}
    definitions = [*(f"{column} {kind}" for column, kind in columns.items()), "arr text[]", '"Ä\n" text']
    types.run(f"CREATE TABLE plain ({', '.join(definitions)})")
    for column, kind in columns.items():
        for value in VALUES[kind]:
            types.run(f"INSERT INTO plain ({column}, arr) VALUES ({literal(value)}, ARRAY[{literal(value)}, NULL])")
    types.ingest("public.plain")
    with types.database.session() as session:
        session.run("SET search_path = pg_catalog; SET IntervalStyle = iso_8601; SET TimeZone = 'UTC'")
        expected = session.run('SELECT row_to_json("~r".*)::text FROM (SELECT * FROM public.plain) "~r"')
    assert types.lines("public.plain") == [line.encode() for (line,) in expected]
