"""How each query engine reads lines where they lie, and takes typed values out of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from tidelog.schema import ColumnDocument
from tidelog.tables import TableName
from tidelog_cli.carried import TypeName, carried

_LAST_PART = "[^/]+$"
_PLAIN = re.compile(r"[a-z][a-z0-9]*\.(?!.*_(?:lines|objects|stage)$|.*__[0-9a-f]{8}$)[a-z0-9_]+")
_NUMBERS = r"""("(?:[^"\\]|\\.)*")|(-?[0-9][-+.0-9eE]*)"""


@dataclass(frozen=True, slots=True)
class Spec:
    """What is to be read.

    Attributes:
        table: its name.
        place: URL or path of the folder that holds its segments, a slash at its end.
        columns: of the lines, as they are now.
        key: the columns that tell rows apart; empty where nobody knows.
        primary: whether that is the primary key, which has no NULL.
        texts: columns that are to stay text.
    """

    table: TableName
    place: str
    columns: tuple[ColumnDocument, ...]
    key: tuple[str, ...]
    primary: bool
    texts: frozenset[str]

    @property
    def view(self) -> str:
        """What the view of the latest versions is called; others have `_lines`, `_objects` or `_stage` behind it.

        Where another table may be called the same, as case and most characters are lost, a hash of the name tells them
        apart.
        """
        full = f"{self.table.schema}.{self.table.name}"
        view = re.sub(r"[^A-Za-z0-9_]", "_", full).lower()
        if _PLAIN.fullmatch(full):
            return view
        return f"{'' if view[0].isalpha() else 't_'}{view}__{hashlib.sha256(str(self.table).encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an engine says things.

    Attributes:
        source: statements that come first.
        rows: what the view of the lines selects from.
        identifier: quotes a name.
        literal: quotes a text.
        text: gives SQL of a column's value as text.
        typed: gives SQL of a column's value; None where it has to stay text.
        json: gives SQL of a value that may be an object or an array.
        position: SQL of the last part of the path of the line's object.
        create: how the statement of a view begins.
        plain: whether names of columns may hold letters, digits and `_` only.
        caution: what to know of numbers in columns that stay text.
    """

    source: tuple[str, ...]
    rows: str
    identifier: Callable[[str], str]
    literal: Callable[[str], str]
    text: Callable[[ColumnDocument], str]
    typed: Callable[[ColumnDocument], str | None]
    json: Callable[[ColumnDocument], str]
    position: str
    create: str = "CREATE OR REPLACE VIEW"
    plain: bool = False
    caution: str = ""


def _doubled(mark: str) -> Callable[[str], str]:
    return lambda text: mark + text.replace(mark, mark * 2) + mark


def _escaped(mark: str) -> Callable[[str], str]:
    def quote(text: str) -> str:
        text = text.replace("\\", "\\\\").replace(mark, f"\\{mark}").replace("\n", "\\n").replace("\r", "\\r")
        return f"{mark}{text}{mark}"

    return quote


def _duckdb(spec: Spec) -> Dialect:
    literal = _doubled("'")
    pattern = re.sub(r"([\[*?])", r"[\1]", spec.place) + "*/*.jsonl.gz"
    pointers = ["/" + column.name.replace("~", "~0").replace("/", "~1") for column in spec.columns]
    numbers = {column.name: number for number, column in enumerate(spec.columns, 1)}
    # DuckDB reads numbers as floats: each is made a string that begins with chr(1), which no line holds as it is.
    marked = (
        f"replace(replace(replace(regexp_replace(json, {literal(_NUMBERS)}, '\\1' || chr(1) || '\\2' || chr(2), 'g'), "
        "chr(1) || chr(2), ''), chr(1), '\"\\u0001'), chr(2), '\"')"
    )
    listed = ", ".join(map(literal, pointers))
    rows = (
        f"(\n  SELECT json_extract_string(m, [{listed}]) AS v, json_extract(m, [{listed}]) AS w, filename\n"
        f"  FROM (\n    SELECT {marked} AS m, filename\n"
        f"    FROM read_ndjson_objects({literal(pattern)}, filename = true, compression = 'gzip')\n"
        "  ) AS marked\n) AS lines"
    )

    def value(column: ColumnDocument) -> str:
        return f"v[{numbers[column.name]}]"

    def whole(column: ColumnDocument) -> str:
        is_json = column.type in ("json", "jsonb")
        text = f"nullif(CAST(w[{numbers[column.name]}] AS VARCHAR), 'null')" if is_json else value(column)
        return f"regexp_replace({text}, '\"\\\\u0001([-+.0-9eE]*)\"', '\\1', 'g')"

    def text(column: ColumnDocument) -> str:
        way = carried(column.type)
        return value(column) if way and not way.bare else f"ltrim({value(column)}, chr(1))"

    def typed(column: ColumnDocument) -> str | None:
        way, found = carried(column.type), TypeName.parse(column.type)
        if way is None or found is None:
            return None
        if not found.many:
            plain = whole(column) if way.type == "JSON" else text(column)
            return way.value(plain).replace("TRY_CAST", "CAST")
        hint = literal(f"{spec.table}: an array does not fit {way.type}; have its column as text, with --text")
        fits = f"{whole(column)} IS NULL OR {way.fits(whole(column))}"
        return f"CASE WHEN {fits} THEN {way.value(whole(column))} ELSE error({hint}) END"

    def nested(column: ColumnDocument) -> str:
        return f"regexp_replace({whole(column)}, '^' || chr(1) || '([-+.0-9eE]*)$', '\\1')"

    source: tuple[str, ...] = ()
    if spec.place.startswith("s3://"):
        source = ("INSTALL httpfs", "LOAD httpfs", "CREATE SECRET IF NOT EXISTS (TYPE s3, PROVIDER credential_chain)")
    position = f"regexp_extract(filename, {literal(_LAST_PART)})"
    return Dialect(source, rows, _doubled('"'), literal, text, typed, nested, position)


def _cast(
    types: dict[str, str], text: Callable[[ColumnDocument], str], decimal: Callable[[int, int], str | None], unhex: str
) -> Callable[[ColumnDocument], str | None]:
    """Return what gives SQL of a value by casting its text."""

    def typed(column: ColumnDocument) -> str | None:
        found = TypeName.parse(column.type)
        if found is None or found.many:
            return None
        if digits := found.digits:
            kind = decimal(*digits)
            return f"CAST({text(column)} AS {kind})" if kind else None
        if found.name == "bytea":
            return unhex.format(f"SUBSTR({text(column)}, 3)")
        kind = types.get(found.name)
        return f"CAST({text(column)} AS {kind})" if kind else None

    return typed


_COMMON = {"smallint": "SMALLINT", "integer": "INTEGER", "bigint": "BIGINT", "boolean": "BOOLEAN", "date": "DATE"}
_STAMP, _STAMP_TZ = "timestamp without time zone", "timestamp with time zone"


def _athena(spec: Spec) -> Dialect:
    """Athena, which is Trino. Its views hold no moments to the microsecond, so those stay text."""
    quoted = _doubled("'")

    def path(column: ColumnDocument) -> str:
        return quoted('$["' + column.name.replace("\\", "\\\\").replace('"', '\\"') + '"]')

    def text(column: ColumnDocument) -> str:
        return f"json_extract_scalar(line, {path(column)})"

    def nested(column: ColumnDocument) -> str:
        return f"coalesce({text(column)}, json_format(json_extract(line, {path(column)})))"

    table = f"{spec.view}_objects"
    objects = (
        "-- Whole lines; the fields' separator is a byte that JSON text never holds.\n"
        f"CREATE EXTERNAL TABLE IF NOT EXISTS `{table}` (`line` string)\n"
        "ROW FORMAT DELIMITED FIELDS TERMINATED BY '\\001' LINES TERMINATED BY '\\n'\n"
        f"LOCATION {quoted(spec.place)}"
    )
    types = _COMMON | {"real": "REAL", "double precision": "DOUBLE"}
    typed = _cast(types, text, lambda p, s: f"DECIMAL({p}, {s})" if p <= 38 else None, "from_hex({})")
    position = f"regexp_extract(\"$path\", '{_LAST_PART}')"
    caution = "numbers inside of objects and arrays are printed anew"
    return Dialect((objects,), f'"{table}"', _doubled('"'), quoted, text, typed, nested, position, caution=caution)


def _snowflake(spec: Spec) -> Dialect:
    quoted = _escaped("'")
    table = f"{spec.view}_objects"
    stage = f"{spec.view}_stage"

    def value(column: ColumnDocument) -> str:
        return f"GET(PARSE_JSON(line), {quoted(column.name)})"

    def text(column: ColumnDocument) -> str:
        return f"CAST({value(column)} AS VARCHAR)"

    staged = (
        "-- Put the name of your own storage integration here.\n"
        f"CREATE STAGE IF NOT EXISTS {stage} URL = {quoted(spec.place)} STORAGE_INTEGRATION = tidelog"
    )
    objects = (
        f"CREATE EXTERNAL TABLE IF NOT EXISTS {table} (\n  line VARCHAR AS (CAST(GET(value, 'c1') AS VARCHAR)),\n"
        f"  path VARCHAR AS (metadata$filename)\n) LOCATION = @{stage} AUTO_REFRESH = FALSE\n"
        "FILE_FORMAT = (TYPE = CSV COMPRESSION = GZIP FIELD_DELIMITER = NONE ESCAPE_UNENCLOSED_FIELD = NONE)"
    )
    types = _COMMON | {
        "real": "DOUBLE", "double precision": "DOUBLE", _STAMP: "TIMESTAMP_NTZ(6)", _STAMP_TZ: "TIMESTAMP_TZ(6)",
        "time without time zone": "TIME(6)",
    }  # fmt: skip
    typed = _cast(
        types, text, lambda p, s: f"NUMBER({p}, {s})" if p <= 38 and s <= 37 else None, "TO_BINARY({}, 'HEX')"
    )
    position = f"REGEXP_SUBSTR(path, '{_LAST_PART}')"
    caution = "Snowflake's JSON keeps 38 digits of a number, and no zeros at its end"
    return Dialect((staged, objects), table, _doubled('"'), quoted, text, typed, text, position, caution=caution)


def _bigquery(spec: Spec) -> Dialect:
    quoted, dataset = _escaped("'"), "tidelog"
    table = f"`{dataset}.{spec.view}_objects`"

    def path(column: ColumnDocument) -> str:
        return quoted('$."' + column.name.replace("\\", "\\\\").replace('"', '\\"') + '"')

    def text(column: ColumnDocument) -> str:
        return f"JSON_VALUE(line, {path(column)})"

    def nested(column: ColumnDocument) -> str:
        return f"COALESCE({text(column)}, JSON_QUERY(line, {path(column)}))"

    def decimal(most: int, scale: int) -> str | None:
        if scale <= 9 and most - scale <= 29:
            return "NUMERIC"
        return "BIGNUMERIC" if scale <= 38 and most - scale <= 38 else None

    objects = (
        "-- Put your own connection to AWS and data set here. The fields' separator is a byte that JSON never holds.\n"
        f"CREATE EXTERNAL TABLE IF NOT EXISTS {table} (line STRING)\nWITH CONNECTION `aws-us-east-1.tidelog`\n"
        "OPTIONS (format = 'CSV', field_delimiter = '\\x01', quote = '', compression = 'GZIP', "
        f"uris = [{quoted(spec.place + '*')}])"
    )
    types = {
        "smallint": "INT64", "integer": "INT64", "bigint": "INT64", "boolean": "BOOL", "date": "DATE",
        "real": "FLOAT64", "double precision": "FLOAT64", _STAMP: "DATETIME", _STAMP_TZ: "TIMESTAMP",
        "time without time zone": "TIME",
    }  # fmt: skip
    typed = _cast(types, text, decimal, "FROM_HEX({})")

    def identifier(name: str) -> str:
        return _escaped("`")(f"{dataset}.{name}" if name.startswith(spec.view) else name)

    position = f"REGEXP_EXTRACT(_FILE_NAME, r'{_LAST_PART}')"
    caution = "numbers inside of objects and arrays are printed anew"
    return Dialect((objects,), table, identifier, quoted, text, typed, nested, position, plain=True, caution=caution)


def _spark(spec: Spec) -> Dialect:
    """Spark reads numbers exactly only into a column of their type: so by a schema, not from text."""
    quoted, name = _escaped("'"), _doubled("`")
    types = {
        "smallint": "SMALLINT", "integer": "INT", "bigint": "BIGINT", "boolean": "BOOLEAN", "date": "DATE",
        "real": "FLOAT", "double precision": "DOUBLE", _STAMP: "TIMESTAMP_NTZ", _STAMP_TZ: "TIMESTAMP",
    }  # fmt: skip

    def kind(column: ColumnDocument) -> str | None:
        found = TypeName.parse(column.type)
        if found is None or found.many or column.name in spec.texts:
            return None
        if digits := found.digits:
            return f"DECIMAL({digits[0]}, {digits[1]})" if digits[0] <= 38 else None
        return types.get(found.name)

    def text(column: ColumnDocument) -> str:
        return f"v.{name(column.name)}"

    def typed(column: ColumnDocument) -> str | None:
        if column.type == "bytea":
            return f"unhex(substr({text(column)}, 3))"
        return text(column) if kind(column) else None

    schema = ", ".join(f"{name(column.name)} {kind(column) or 'STRING'}" for column in spec.columns)
    place = re.sub("^s3://", "s3a://", spec.place)
    objects = (
        f"CREATE OR REPLACE TEMPORARY VIEW {spec.view}_objects USING text\n"
        f"OPTIONS (path {quoted(place)}, recursiveFileLookup 'true', pathGlobFilter '*.jsonl.gz', lineSep '\\n')"
    )
    rows = (
        f"(\n  SELECT from_json(value, {quoted(schema)}, map('mode', 'FAILFAST')) AS v, input_file_name() AS path\n"
        f"  FROM {spec.view}_objects\n) AS lines"
    )
    position = f"regexp_extract(path, '{_LAST_PART}', 0)"
    create, caution = "CREATE OR REPLACE TEMPORARY VIEW", "before Spark 4 numbers pass through a float there"
    return Dialect((objects,), rows, name, quoted, text, typed, text, position, create, caution=caution)


ENGINES: dict[str, Callable[[Spec], Dialect]] = {
    "duckdb": _duckdb,
    "athena": _athena,
    "snowflake": _snowflake,
    "bigquery": _bigquery,
    "spark": _spark,
}
