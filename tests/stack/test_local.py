"""`tidelog local`, on databases of a user's own."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import boto3
import pytest

from tests.conftest import CreateDatabase
from tests.lines import lost_rows
from tests.stack.command import TIDELOG, Folder, address, environment
from tests.tide import Database

ODD = {
    '"odd.schema"."a/b ""c"" d.e"': """
        CREATE SCHEMA "odd.schema"; CREATE TABLE "odd.schema"."a/b ""c"" d.e" ("x.""y" int, "Größe" text);
        INSERT INTO "odd.schema"."a/b ""c"" d.e" VALUES (1, 'ß'), (2, NULL)""",
    "public.none": "CREATE TABLE none (); INSERT INTO none DEFAULT VALUES; INSERT INTO none DEFAULT VALUES",
    "public.keyless": "CREATE TABLE keyless (a int); INSERT INTO keyless VALUES (1), (1), (NULL)",
    "public.parts": """
        CREATE TABLE parts (id int, region text, amount numeric) PARTITION BY LIST (region);
        CREATE TABLE parts_north PARTITION OF parts FOR VALUES IN ('north');
        CREATE TABLE parts_south (amount numeric, gone int, region text, id int);
        ALTER TABLE parts_south DROP COLUMN gone;
        ALTER TABLE parts ATTACH PARTITION parts_south FOR VALUES IN ('south');
        INSERT INTO parts VALUES (1, 'north', 1.5), (2, 'south', 2.50), (3, 'south', NULL)""",
    "public.parent": "CREATE TABLE parent (id int); INSERT INTO parent VALUES (1)",
    "public.child": "CREATE TABLE child (extra text) INHERITS (parent); INSERT INTO child VALUES (2, 'x'), (3, 'y')",
    "public.t": """
        CREATE TYPE pair AS (a int, b text); CREATE TABLE t (t pair, "~t" int, r text);
        INSERT INTO t VALUES ((1, 'x'), 2, 'r'), (NULL, NULL, NULL)""",
    "public.arrays": """
        CREATE TABLE arrays (a int[], b text[]);
        INSERT INTO arrays VALUES ('[0:2]={1,2,3}', '{a,NULL}'), ('{{1,2},{3,4}}', '{}'), (NULL, '[5:5]={"x y"}')""",
    "public.documents": """
        CREATE TABLE documents (raw json, parsed jsonb);
        INSERT INTO documents VALUES (E'{"a":\\n  [1,\\r\\n 2]}', '{"a": [1, 2]}'), ('"text"', '"text"')""",
    "public.extremes": f"""
        CREATE TABLE extremes (n numeric, f float8, d date, ts timestamptz, tn timestamp);
        INSERT INTO extremes VALUES ('NaN', '-Infinity', 'infinity', '-infinity', '0044-03-15 12:00 BC'),
        ({"7" * 5000}.{"3" * 200}, 5e-324, '0044-03-15 BC', '294276-12-31 23:59:59.999999Z', '2024-02-29'),
        ('Infinity', 'NaN', '5874897-12-31', NULL, NULL)""",
    "public.guarded": """
        CREATE TABLE guarded (owner text); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON guarded USING (owner = current_user); INSERT INTO guarded VALUES ('a'), ('b')""",
}
OTHERS = """
    CREATE VIEW seen AS SELECT 1 AS one; CREATE FOREIGN DATA WRAPPER far; CREATE SERVER away FOREIGN DATA WRAPPER far;
    CREATE FOREIGN TABLE elsewhere (id int) SERVER away; CREATE TABLE empty (id int)"""


@pytest.fixture(scope="module")
def odd(create_database: CreateDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    """A database of odd tables, and a folder for them."""
    with create_database() as database:
        database.run(*ODD.values(), OTHERS)
        yield Folder(database, tmp_path_factory.mktemp("odd"))


@pytest.fixture(scope="module")
def first(odd: Folder) -> subprocess.CompletedProcess[str]:
    """The first run on it."""
    return odd.run("--tables", "*", "--tables", "public.seen", "--json")


def test_odd_tables_are_ingested_beside_one_that_can_not_be(first: subprocess.CompletedProcess[str]) -> None:
    """A view that was asked for by name is an error; all tables are done; what was not taken is named."""
    assert first.returncode == 1, first.stderr
    told = json.loads(first.stdout)
    assert {table["table"]: table["outcome"] for table in told["tables"]} == {
        **dict.fromkeys(ODD, "snapshotted"),
        "public.empty": "unchanged",
    }
    assert [left["table"] for left in told["refused"]] == ["public.seen"]
    assert [left["table"] for left in told["skipped"]] == ["public.elsewhere"]
    assert "a foreign table" in told["skipped"][0]["reason"]


@pytest.mark.parametrize("table", ODD)
@pytest.mark.usefixtures("first")
def test_each_row_is_one_line_that_gives_it_back(odd: Folder, table: str) -> None:
    """Exactly one line per row, and each line given to json_populate_record is the row."""
    only = "ONLY " if table == "public.parent" else ""
    assert len(odd.lines(table)) == odd.database.one(f"SELECT count(*) FROM {only}{table}")
    if table != "public.parent":
        assert lost_rows(odd, table) == []


@pytest.mark.usefixtures("first")
def test_a_run_without_changes_writes_nothing_and_one_with_changes_only_those(odd: Folder) -> None:
    """Nothing new: no object, no event. Three changed rows: three lines, and the numbers go on from the folder."""
    before = odd.files()
    again = odd.run()
    assert again.returncode == 0, again.stderr
    assert "not taken: public.seen is a view" in again.stdout
    assert odd.files() == before
    odd.database.run(
        "UPDATE keyless SET a = 2 WHERE a IS NULL; INSERT INTO parts VALUES (4, 'north', 0); DELETE FROM t"
    )
    odd.database.run("""UPDATE "odd.schema"."a/b ""c"" d.e" SET "Größe" = 'x' WHERE "x.""y" = 2""")
    result = odd.run("--json")
    assert result.returncode == 0, result.stderr
    changed = {t["table"]: (t["rows"], t["sequential_id"]) for t in json.loads(result.stdout)["tables"] if t["rows"]}
    assert changed == {'"odd.schema"."a/b ""c"" d.e"': (1, 1), "public.keyless": (1, 1), "public.parts": (1, 1)}
    new = odd.files().keys() - before.keys()
    assert sorted(name.split("/")[0] for name in new) == ["data"] * 3 + ["ledger"] * 3
    assert odd.rows("public.parts")[-1] == {"id": 4, "region": "north", "amount": 0}


def test_a_table_that_fails_is_named_on_stderr_and_the_others_are_done(
    database: Database, role: str, tmp_path: Path
) -> None:
    """A role without SELECT on one of two tables: status 1, the GRANT to run, and the other table."""
    database.run(
        "CREATE TABLE mine AS SELECT 1 AS id; CREATE TABLE theirs AS SELECT 1 AS id",
        f"GRANT SELECT ON mine TO {role}",
    )
    folder = Folder(database, tmp_path)
    result = folder.run(user=role)
    assert result.returncode == 1
    assert "public.theirs" in result.stderr
    assert "GRANT SELECT" in result.stderr
    assert "public.mine" in result.stdout
    assert folder.rows("public.mine") == [{"id": 1}]
    assert database.server.password not in result.stdout + result.stderr


def test_a_pattern_that_meets_no_table_is_refused(database: Database, tmp_path: Path) -> None:
    """Status 1, and what others meet is done."""
    database.run("CREATE TABLE orders AS SELECT 1 AS id")
    folder = Folder(database, tmp_path)
    result = folder.run("--tables", "pubic.*", "--tables", "public.ord*", "--tables", "orders")
    assert result.returncode == 1
    assert "refused: pubic.*: no table meets it" in result.stderr
    assert "refused: orders: no such table: write schema.table" in result.stderr
    assert folder.rows("public.orders") == [{"id": 1}]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://root@localhost/db", "postgresql://"),
        ("postgresql://postgres@127.0.0.1:9/db", "127.0.0.1"),
        ("postgresql://u@localhost/db?sslmode=prefer", "verify-full"),
        ("postgresql://u@localhost/db?host=other", "host is no option"),
        ("postgresql://u@localhost/db?sslrootcert=/nofile", "/nofile can't be read: No such file"),
        ("postgresql://u@localhost:99999/db", "a port is a number up to 65535"),
        ("postgresql://u:pa/ss@localhost/db", "/ ? # @ : in a password are written %2F"),
        ("postgresql://u@[::1:5432/db", "an IPv6 address stands in brackets"),
    ],
)
def test_an_address_that_does_not_work_is_told_what_to_do(url: str, words: str, tmp_path: Path) -> None:
    """One line that names what is wrong; no traceback."""
    command = [TIDELOG, "local", "run", "--database", url, "--lake", str(tmp_path)]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode in (1, 2)
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr
    assert [*tmp_path.iterdir()] == []  # Nothing was deployed for it.


@pytest.mark.parametrize(
    ("lake", "words"),
    [
        ("s3://bucket/x", "a local run writes to a folder: deploy the stack for a bucket"),
        ("", "name a folder"),
    ],
)
@pytest.mark.parametrize("command", ["run", "up"])
def test_a_lake_that_is_no_folder_is_told_what_to_do(command: str, lake: str, words: str, tmp_path: Path) -> None:
    """In a line, and nothing is written anywhere."""
    command_line = [TIDELOG, "local", command, "--database", "postgresql://u@localhost/db", "--lake", lake]
    result = subprocess.run(
        command_line, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert [*tmp_path.iterdir()] == []


def test_up_keeps_ingesting_on_the_schedule_until_it_is_interrupted(database: Database, tmp_path: Path) -> None:
    """It prints where AWS is; a message put on the queue by hand is worked off; Ctrl-C ends it with status 0."""
    database.run("CREATE TABLE orders (id int); INSERT INTO orders VALUES (1)")
    command = [TIDELOG, "local", "up", "--database", address(database), "--lake", str(tmp_path)]
    variables = environment(PGPASSWORD=database.server.password)
    # Whoever runs the tests in the background may have Ctrl-C ignored by all that they start.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True, preexec_fn=heed) as process:  # noqa: PLW1509 - it only sets a signal
        assert process.stdout
        told: dict[str, str] = {}
        for line in process.stdout:
            name, _, value = (
                line.strip().removeprefix("export ").removeprefix("# ").replace(": ", "=", 1).partition("=")
            )
            told[name] = value
            if "public.orders" in line and "snapshot" in line:
                break
        database.run("INSERT INTO orders VALUES (2)")
        sqs = boto3.client(
            "sqs",
            endpoint_url=told["AWS_ENDPOINT_URL"],
            region_name=told["AWS_DEFAULT_REGION"],
            aws_access_key_id=told["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=told["AWS_SECRET_ACCESS_KEY"],
        )
        body = '{"version":1,"type":"ingest","table":"public.orders"}'
        sqs.send_message(QueueUrl=told["WorkQueueUrl"], MessageBody=body, MessageGroupId="public.orders")
        sqs.close()
        assert "increment 1" in next(line for line in process.stdout if "public.orders" in line)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert Folder(database, tmp_path).rows("public.orders") == [{"id": 1}, {"id": 2}]
