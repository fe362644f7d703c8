"""Which values survive? A small table of hostile ones, written by tidelog and its peers, and given back to PostgreSQL.

A value is kept if PostgreSQL reads the very same one from what was written: as `json_populate_record` does, which is
how lines of tidelog are read back. More is granted than that: JSON in a string counts for the JSON, base64 and lists of
numbers for bytes, a time without a zone for UTC, a missing key for NULL. Where a peer refuses the table it is given
each column in a table of its own.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from benchmarks.peers import NULL_PEER, PEERS, Peer, Task, lines
from benchmarks.processes import Process, ToolFailedError, run
from benchmarks.results import Bar, Grid, Section, circumstances, parser
from benchmarks.setting import Setting, on_lambda, report, set_up

from tidelog_sandbox.postgres import Postgres

TABLE = "hostile"
VALUES = {
    "small": ("smallint", "-32768", "32767"),
    "big": ("bigint", "9223372036854775807", "-9223372036854775808", "9007199254740993"),
    "exact": (
        *("numeric", "1234567890123456789012345678901234567890", "0.1234567890123456789012345678901234567890"),
        *("'NaN'", "-99999999999999999999.5", "1.10"),
    ),
    "price": ("numeric(40, 20)", "12345678901234567890.12345678901234567890", "0.00000000000000000001", "-1"),
    "real": ("real", "1.17549435e-38", "'Infinity'", "0.1", "16777217"),
    "double": (
        *("double precision", "'NaN'", "'Infinity'", "'-Infinity'"),
        *("0.1", "5e-324", "1.7976931348623157e308", "0.30000000000000004"),
    ),
    "truth": ("boolean", "true", "false"),
    "at": (
        *("timestamptz", "'2024-02-29 23:59:59.999999+00'", "'infinity'", "'-infinity'"),
        *("'0044-03-15 12:00:00+00 BC'", "'294276-12-31 23:59:59.999999+00'", "'1900-01-01 00:00:00.000001+05:53:28'"),
    ),
    "local": (
        *("timestamp", "'2024-02-29 23:59:59.999999'", "'infinity'", "'0044-03-15 12:00:00 BC'", "'9999-12-31 23:59'"),
        "'1677-09-21 00:12:43.000001'",
    ),
    "day": ("date", "'2024-02-29'", "'infinity'", "'4713-01-01 BC'", "'5874897-12-31'", "'0001-01-01'"),
    "clock": ("time", "'24:00:00'", "'23:59:59.999999'", "'00:00:00'"),
    "zoned": ("timetz", "'23:59:59.999999+14:00'", "'00:00:00-11:30'"),
    "span": ("interval", "'1 year 2 months -3 days 04:05:06.000007'", "'-178000000 years'", "'1 month'", "'30 days'"),
    "document": (
        *("jsonb", """'{"a": 1.10, "b": 1e2, "c": [1, 1.0, 1.00]}'""", "'12345678901234567890123456789012345678.5'"),
        *("""'"{\\"not\\": \\"an object\\"}"'""", """'{"\\u00e9": null, "": [[], {}]}'""", "'[true, \"1\", 1]'"),
    ),
    "word": (
        *("text", "''", "'null'", r"E'a\tb\nc\rd\\e\"f/\x01\x1f\x7f'", "'emoji 🜚 e\u0301 \u2028 \u0085 \ufeff'"),
        *(r"'\N'", "'NaN'", "' padded '", "'2024-01-01'", "'0012'"),
    ),
    "padded": ("char(5)", "'ab'", "''"),
    "bytes": ("bytea", r"'\x'", r"'\x00ff10'", r"'\xdeadbeef5c5c6e'"),
    "numbers": ("bigint[]", "'{}'", "'{1,NULL,9223372036854775807}'", "'{{1,2},{3,4}}'"),
    "words": ("text[]", """'{"a,b","c\\"d",NULL,"NULL",""}'""", """'{"\\\\","{x}"}'"""),
    "id4": ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"),
    "address": ("inet", "'192.168.0.1/24'", "'2001:db8::1'"),
    "mood": ("feeling", "'so so'", "'ök'"),
    "span_of": ("tstzrange", "'[2024-01-01 00:00+00, infinity)'", "'empty'"),
}
"""Of each column the type, and the values as SQL. In the rows behind these it is NULL; the first of them counts."""
_ROWS = max(len(values) for values in VALUES.values())
_COUNT = sum(len(values) for values in VALUES.values())
_KEPT = f"""
CREATE FUNCTION kept(said text, name text, of_type text, row_id integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE same boolean;
BEGIN
    EXECUTE format(
        'SELECT said.%1$I::text IS NOT DISTINCT FROM t.%1$I::text '
        || CASE WHEN of_type = 'interval' THEN '' ELSE 'OR said.%1$I IS NOT DISTINCT FROM t.%1$I ' END
        || 'FROM {TABLE} t, json_populate_record(NULL::{TABLE}, %2$L::json) said WHERE t.id = %3$s',
        name, said, row_id) INTO same;
    RETURN same;
EXCEPTION WHEN OTHERS THEN
    RETURN false;
END $$;
"""


class Number(str):
    """A number of a JSON text, as it stands there."""

    __slots__ = ()


@dataclass(slots=True)
class Subject:
    """What has come of one of them.

    Attributes:
        name: of it.
        refused: why it would not write the table; empty if it did.
        lost: values by their types.
    """

    name: str
    refused: str
    lost: Counter[str]


def main() -> None:
    """Write the table with all of them, compare, print and write."""
    given = parser(__doc__).parse_args()
    load = os.getloadavg()[0]
    with set_up() as setting:
        server = setting.server
        server.run("CREATE TYPE feeling AS ENUM ('so so', 'ök')")
        make_table(server, TABLE, VALUES)
        server.run(_KEPT)
        for column in VALUES:
            make_table(server, f"{TABLE}_{column}", [column])
        subjects = [Subject("tidelog worker", "", count_lost(server, ours(setting), VALUES))]
        for peer in (peer for peer in PEERS if peer.name != NULL_PEER):
            report(f"{peer.name} …")
            subjects.append(judge(setting, peer))
        where = circumstances(load, setting.versions())
    section = result(where, subjects)
    section.print()
    section.write(given.results)


def make_table(server: Postgres, name: str, columns: Iterable[str]) -> None:
    """Make a table of some of the columns, with all their values."""
    chosen = {column: VALUES[column] for column in columns}
    kinds = ", ".join(f"{column} {values[0]}" for column, values in chosen.items())
    rows = [
        ", ".join(values[row] if row < len(values) else "NULL" for values in chosen.values())
        for row in range(1, _ROWS + 1)
    ]
    tuples = ", ".join(f"({number}, {row})" for number, row in enumerate(rows, 1))
    server.run(f"CREATE TABLE {name} (id integer PRIMARY KEY, {kinds}); INSERT INTO {name} VALUES {tuples}; ANALYZE")


def ours(setting: Setting) -> list[bytes]:
    """Return the lines that a worker writes of the table."""
    setting.make_lake("lake")
    command = on_lambda("worker")
    with closing(Process(command, setting.environment("lake"), setting.scratch / "log")) as worker:
        key = json.loads(worker.ask(f"public.{TABLE}"))["key"]
    body: bytes = setting.store.client.get_object(Bucket="lake", Key=key)["Body"].read()
    return gzip.decompress(body).splitlines(keepends=True)


def judge(setting: Setting, peer: Peer) -> Subject:
    """Have a peer write the table, or its columns one by one; say what it has lost."""
    try:
        return Subject(peer.name, "", count_lost(setting.server, write(setting, peer, TABLE), VALUES))
    except ToolFailedError as error:
        refused = error.brief

    def lost_of(column: str) -> Counter[str]:
        try:
            written = write(setting, peer, f"{TABLE}_{column}")
        except ToolFailedError:
            written = []
        return count_lost(setting.server, written, [column])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return Subject(peer.name, refused, sum(pool.map(lost_of, VALUES), Counter[str]()))


def write(setting: Setting, peer: Peer, table: str) -> list[bytes]:
    """Return the lines that a peer writes of a table.

    Raises:
        ToolFailedError: it would not.
    """
    directory = setting.directory(f"peer-{table}")
    log = setting.scratch / f"log-{table}"
    run(peer.pipe(Task(setting.server, table, directory)), setting.server, log, seconds=300)
    return list(lines(directory))


def count_lost(server: Postgres, written: Iterable[bytes], columns: Iterable[str]) -> Counter[str]:
    """Count by types the values of some columns that PostgreSQL does not read from the lines that were written."""
    rows: dict[int, dict[str, Any]] = {}
    for line in written:
        try:
            row = json.loads(line, parse_float=Number, parse_int=Number, parse_constant=str)
        except ValueError:
            continue
        if isinstance(row, dict) and "id" in row:
            rows[int(row["id"])] = row
    cells = [(number, column) for column in columns for number in range(1, len(VALUES[column]) + 1)]
    questions: list[str] = []
    for number, column in cells:
        kind = VALUES[column][0]
        texts = set(readings(rows[number].get(column), kind)) if number in rows else set()
        said = [_literal(f'{{"{column}": {text}}}') for text in texts]
        asked = [f"kept({text}, '{column}', '{kind}', {number})" for text in said]
        questions.append(f"({len(questions)}, {' OR '.join(asked) or 'false'})")
    answers = server.run(f"SET TimeZone = 'UTC'; SELECT was FROM (VALUES {', '.join(questions)}) v (n, was) ORDER BY n")
    return Counter(VALUES[column][0] for (_, column), was in zip(cells, answers.split(), strict=True) if was != "t")


def readings(value: Any, kind: str) -> Iterator[str]:
    """Yield as JSON what a value that was written may stand for."""
    yield encoded(value)
    if isinstance(value, str) and not isinstance(value, Number):
        if kind == "jsonb" or kind.endswith("[]"):
            try:
                yield encoded(json.loads(value, parse_float=Number, parse_int=Number))
            except ValueError:
                return
        if kind == "bytea":
            try:
                yield json.dumps(f"\\x{base64.b64decode(value, validate=True).hex()}")
            except ValueError:
                return
    if kind == "bytea" and isinstance(value, list):
        yield json.dumps(f"\\x{bytes(int(each) for each in value).hex()}")


def encoded(value: Any) -> str:
    """Return a value as JSON, its numbers as they were."""
    if isinstance(value, Number):
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(encoded, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key)}: {encoded(each)}' for key, each in value.items())}}}"
    return json.dumps(value)


def result(where: str, subjects: Iterable[Subject]) -> Section:
    """Say what has come of them."""
    rows = []
    for each in subjects:
        lost = ", ".join(f"{kind} {number}" for kind, number in each.lost.most_common())
        rows.append((each.name, lost, each.refused, f"{_COUNT - each.lost.total()}"))
    headings = ("", "lost, by type", "refuses the table", f"kept of {_COUNT}")
    kept = int(rows[0][-1])
    return Section(
        "values",
        "Values kept",
        where,
        [Grid(headings, rows, f"A table of {len(VALUES)} columns of hostile values, and NULLs:", text=3)],
        [Bar(f"values that tidelog keeps, of {_COUNT}", kept, _COUNT)],
    )


def _literal(text: str) -> str:
    doubled = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{doubled}'"


if __name__ == "__main__":
    main()
