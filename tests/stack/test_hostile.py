"""Names, messages, arguments and objects that mean harm, on the whole system: each is data, and does nothing."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from tests.chaos.plan import ROOT
from tests.conftest import CreateDatabase
from tests.sandbox.conftest import taken
from tests.stack.command import address, environment
from tests.stack.office import PARAMETERS, Office
from tidelog import records
from tidelog.errors import TidelogError
from tidelog.events import Event
from tidelog.quoting import identifier, literal
from tidelog.tables import TableName
from tidelog_cli.main import app
from tidelog_sandbox.errors import SandboxError
from tidelog_sandbox.sandbox import Sandbox

NAMES = [
    '"; DROP TABLE bystander; --',
    "'); DELETE FROM bystander; --",
    "$(touch pwned)`touch pwned`; touch pwned",
    "../../../etc/passwd",
    "%s%n%00%2e%2e%2f{0}",
    "a\nb\r\x1b[31m\x07\u202e",
    "💥" * 15 + "abc",  # 63 bytes
    "[bold red]x[/]",
    "=HYPERLINK(1)",
    "\\'\\\\",
]
TABLES = {name: str(TableName(name, name)) for name in NAMES}
DEEP, DEEPER = ("[" * depth + "]" * depth for depth in (300, 5000))
TEXTS = [*NAMES, "\x01\x02\x03", "\\N", "\\.", '","', "x" * 100_000]


class Den(Office):
    """A deployed stack over a database that means harm."""

    def command(self, *command: str, cwd: Path) -> tuple[int, str, BaseException | None]:
        """Run `tidelog` in a folder; return its exit status, what it printed, and what it died of."""
        variables = {**self.sandbox.environment, "TIDELOG_STACK": "tidelog", "COLUMNS": "200"}
        variables["PGPASSWORD"] = self.tide.database.server.password
        mine = environment(**variables)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(cwd)
            done = CliRunner().invoke(app, command, env={**dict.fromkeys(os.environ.keys() - mine.keys()), **variables})
        match done.exception:
            case SystemExit() | None:
                return done.exit_code, done.output, None
            case TidelogError() | SandboxError() | OSError(filename=str()) as told:  # The program prints it in a line.
                return 1, f"{done.output}{told}", None
        return done.exit_code, done.output, done.exception

    def is_unharmed(self, *folders: Path) -> bool:
        """Say whether the bystander has its row, and nothing was touched."""
        touched = [path for folder in (*folders, Path.cwd(), ROOT) for path in folder.glob("*pwned*")]
        return not touched and self.tide.run("SELECT id FROM bystander") == [[1]]


@pytest.fixture(scope="module")
def den(create_database: CreateDatabase) -> Iterator[Den]:
    """Schemas, tables and columns of hostile names, with hostile values, ingested."""
    with create_database() as database:
        database.run("CREATE TABLE bystander AS SELECT 1 AS id")
        values = ", ".join(f"({number}, {literal(text)})" for number, text in enumerate(TEXTS, start=1))
        for name in map(identifier, NAMES):
            database.run(
                f"CREATE SCHEMA {name}",
                f"CREATE TABLE {name}.{name} (id int PRIMARY KEY, {name} text, deep jsonb, updated_at timestamptz)",
                f"INSERT INTO {name}.{name} VALUES {values}",
                f"UPDATE {name}.{name} SET deep = '{DEEP}' WHERE id = 1",
            )
        database.pass_horizon()
        to = database.server.credentials(database.name)
        content = {field: getattr(to, field) for field in to.__struct_fields__} | {"engine": "postgres"}
        with Sandbox(ROOT / "template.yaml", parameters=PARAMETERS, database=content) as sandbox:
            den = Den(sandbox, database)
            sandbox.start_mappings()
            den.tick()
            yield den


def test_every_table_is_in_the_lake_under_its_own_name(den: Den) -> None:
    """Each row once, as it is in the table; an update, a sweep and a backfill do what they do elsewhere."""
    for name in TABLES:
        den.tide.run(f"UPDATE {TableName(name, name).sql} SET updated_at = '2026-01-02' WHERE id = 2")
    den.tide.database.pass_horizon()
    den.tick()
    for table in TABLES.values():
        den.send(f'{{"version":1,"type":"sweep","table":{json.dumps(table)}}}')
        den.send(
            json.dumps({"version": 1, "type": "backfill", "table": table, "from": "2026-01-01", "to": "2026-02-01"})
        )
    den.settle()
    for name, table in TABLES.items():
        den.tide.check(table)
        assert den.tide.latest(table) == den.tide.table(table), name
        assert len(den.tide.rows(table)) == len(TEXTS) + 2  # the update, and the backfill of what it dated
    assert {key.count("/") for key in den.tide.lake.keys("ledger/")} == {2}
    assert not den.tide.lake.keys("../") + den.tide.lake.keys("/")
    assert den.is_unharmed()


def test_every_command_takes_a_name_for_a_name(den: Den, tmp_path: Path) -> None:
    """It prints no control character, writes no other file than asked for, and does what it should."""
    out, here = tmp_path / "work", address(den.tide.database)
    out.mkdir()
    commands: list[tuple[str, ...]] = [
        ("run", *TABLES.values()),
        ("verify", *TABLES.values(), "--database", here),
        ("tables",),
        ("status",),
    ]
    for number, table in enumerate(TABLES.values()):
        commands += [
            ("history", table),
            ("latest", table, "--to", f"{number}.csv"),
            ("ddl", table, "--engine", "duckdb"),
            ("backfill", table, "--from", "2020-01-01", "--to", "2020-01-02"),
        ]
    for command in commands:
        code, printed, died = den.command(*command, cwd=out)
        assert died is None, (command, died)
        assert code == 0, (command, printed)
        if command[0] != "ddl":  # SQL is for an engine: it has to be exact.
            assert not [char for char in printed if not char.isprintable() and char != "\n"], (command, printed)
    for number, name in enumerate(TABLES):
        with (out / f"{number}.csv").open(newline="", encoding="utf-8") as file:
            rows = {row["id"]: row[name] for row in csv.DictReader(file)}
        assert rows == {str(number): text for number, text in enumerate(TEXTS, start=1)}
    assert len(list(tmp_path.rglob("*"))) == 1 + len(NAMES)
    assert den.is_unharmed(out)


def test_values_that_are_bombs_are_carried(den: Den, tmp_path: Path) -> None:
    """Nested as deeply as PostgreSQL takes it, as long as a number can be: into the lake, and out of it."""
    den.tide.run(
        "CREATE TABLE bomb (id int PRIMARY KEY, j json, b jsonb, n numeric)",
        f"INSERT INTO bomb VALUES (1, '{DEEPER}', '{DEEPER}', ('1' || repeat('0', 131071))::numeric)",
    )
    den.tick()
    table, here = "public.bomb", address(den.tide.database)
    [line] = den.tide.lines(table)
    assert line == den.tide.database.one("SELECT row_to_json(bomb)::text FROM bomb").encode()
    for command in (("verify", table, "--database", here), ("latest", table, "--to", "bomb.jsonl")):
        assert den.command(*command, cwd=tmp_path)[::2] == (0, None), command
    assert (tmp_path / "bomb.jsonl").read_bytes() == line + b"\n"


ARGUMENTS = [
    *NAMES,
    "public.t\0",
    "--to=/etc/passwd",
    "a.b.c",
    "public." + "é" * 32,
    "2020-01-01'; DROP TABLE bystander; --",
    "9" * 5000,
    "s3://../../x",
    "\udcff",
]


@pytest.mark.parametrize(
    "command",
    [
        ("history",), ("run",), ("verify",), ("sweep",), ("latest", "--to", "x.csv"), ("ddl", "--engine"),
        ("backfill", "public.bystander", "--to", "2030-01-01", "--from"), ("backfill", "--all"),
        ("config", "check"), ("verify", "--lake"), ("verify", "--database"), ("status", "--stack"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_arguments_that_are_no_good_are_refused_in_words(den: Den, command: tuple[str, ...], tmp_path: Path) -> None:
    """None is run, read or written as something else, and none ends in a traceback."""
    for argument in ARGUMENTS[: -1 if command[-1] == "--stack" else None]:  # botocore can't say the last one
        code, printed, died = den.command(*command, argument, cwd=tmp_path)
        assert died is None, (argument, died)
        assert code in (1, 2), (argument, printed)
        assert "Traceback" not in printed
    assert list(tmp_path.iterdir()) == []
    assert den.is_unharmed(tmp_path)


def test_messages_that_mean_harm_end_among_the_dead_letters(den: Den) -> None:
    """With the reason; an email tells of them in one line. Ranges and steps become literals or nothing."""
    harm = "'; DROP TABLE bystander; --"
    bodies = [
        {
            "version": 1,
            "type": "backfill",
            "table": "public.bystander",
            "from": "2020-01-01" + harm,
            "to": "2021-01-01",
        },
        {"version": 1, "type": "backfill", "table": "public.bystander", "all": True, "column": harm},
        {"version": 1, "type": "backfill", "table": "public.bystander", "all": True, "request": "../../x" + harm},
        {"version": 1, "type": "backfill", "table": "public.bystander", "plan": 1, "chunk": 10**30},
        {"version": 1, "type": "ingest", "table": "../../ledger.x\nSubject: y"},
        {"version": 1, "type": "ingest", "table": '"gone\n\x1b[31m"."../../x\u202e"'},
        {"version": 1, "type": "ingest", "table": "public.bystander", "tick": DEEPER},
    ]
    emails = len(den.sandbox.emails)
    for body in bodies:
        den.send(json.dumps(body))
    den.send(DEEPER)
    den.settle()
    letters = taken(den.sandbox, den.sandbox.outputs["DeadLettersUrl"])
    assert {letter["Body"] for letter in letters} >= {json.dumps(bodies[0]), json.dumps(bodies[4]), DEEPER}
    for email in den.sandbox.emails[emails:]:
        assert email.subject.isascii()
        assert email.subject.isprintable()
    assert not [key for key in map(str, den.tide.lake.keys()) if ".." in key]
    assert den.is_unharmed()


def test_objects_that_mean_harm_are_nothing_but_wrong(den: Den, tmp_path: Path) -> None:
    """A lake that somebody has tampered with who can seal events: a segment is a file elsewhere, JSON has no end."""
    table, lake, secret = "public.victim", tmp_path / "lake", tmp_path / "secret.jsonl.gz"
    den.tide.run("CREATE TABLE victim AS SELECT 1 AS id")
    den.tick()
    for folder in ("data", "ledger", "schema"):
        for key in den.tide.lake.keys(f"{folder}/{table}/"):
            path = lake / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(den.tide.lake.body(key))
    [first] = (lake / "ledger" / table).iterdir()
    event = records.decode(first.read_bytes())
    assert event.segment
    secret.write_bytes(gzip.compress(b'{"id":"canary"}\n'))
    keys = (f"data/{table}/../../../secret.jsonl.gz", str(secret), "/", "data/\0", f"data/{'x' * 5000}")
    harmful = [records.encode(records.sealed(replaced(event, event.segment.key, key))) for key in keys]
    bombs = (DEEPER, f'{{"x":{DEEPER}}}', "", "\0", '"' + "9" * 10_000)
    for data in (*harmful, *(bomb.encode() for bomb in bombs)):
        first.write_bytes(data)
        for command in (
            ("latest", table, "--key", "id", "--to", "out.csv", "--force"),
            ("verify", "--ledger-only"),
            ("history", table),
        ):
            code, printed, died = den.command(*command, "--lake", str(lake), cwd=tmp_path)
            assert died is None, (command, data[:200], died)
            assert "canary" not in printed
            assert code == 1 or command[0] != "verify", (command, data[:200], printed)
            assert not [path for path in tmp_path.glob("out*") if "canary" in path.read_text("utf-8")]


def replaced(event: Event, key: str, by: str) -> Event:
    """Return an event with another key of its segment."""
    text = msgspec.json.encode(event).decode()
    assert json.dumps(key) in text
    return msgspec.json.decode(text.replace(json.dumps(key), json.dumps(by)), type=Event)
