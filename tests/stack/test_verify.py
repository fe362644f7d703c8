"""`tidelog verify` as an operator runs it: on a deployed stack, and on a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.chaos.plan import ROOT
from tests.conftest import CreateDatabase
from tests.stack.command import address, tidelog
from tests.stack.office import PARAMETERS, Office
from tidelog_cli.main import app
from tidelog_sandbox.sandbox import Sandbox


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the lake is mirrored to."""
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="module")
def office(create_database: CreateDatabase, lake: Path) -> Iterator[Office]:
    """Two tables in the lake of a stack; one has a row that is not there yet."""
    with create_database() as database:
        database.run(
            "CREATE TABLE t (id int PRIMARY KEY, email text)",
            "INSERT INTO t SELECT n, n || '@example.com' FROM generate_series(1, 50) n",
            "CREATE TABLE keyless AS SELECT 1 AS one",
        )
        server = database.server.credentials(database.name)
        content = {name: getattr(server, name) for name in server.__struct_fields__} | {"engine": "postgres"}
        with Sandbox(ROOT / "template.yaml", parameters=PARAMETERS, database=content, lake=lake) as sandbox:
            sandbox.start_mappings()
            office = Office(sandbox, database)
            office.tick()
            database.run("INSERT INTO t VALUES (51, 'new')")
            yield office


def refused(office: Office, *command: str) -> str:
    """Run a command that ends with status 1; return what it printed."""
    variables = {**office.sandbox.environment, "TIDELOG_STACK": "tidelog", "COLUMNS": "200"}
    done = CliRunner().invoke(app, command, env=variables)
    assert done.exit_code == 1, done.output
    return done.output


def test_a_stack_is_verified_by_its_own_secret(office: Office) -> None:
    """All tables, with what was compared; and a copy in a folder with a database that is named."""
    found = json.loads(office.tidelog("verify", "--json"))
    assert found["right"]
    assert {
        each["table"]: (each["verdict"], each["rows"], each["pending"], each["gone"]) for each in found["tables"]
    } == {"public.keyless": ("right", 1, 0, None), "public.t": ("right", 50, 1, 0)}
    shown = office.tidelog("verify", "public.t")
    headings, _, row, *_, end = [" ".join(line.split()) for line in shown.strip().splitlines()]
    assert headings == "table rows compared differing pending gone ledger verdict"
    assert row == "public.t 50 0 1 0 1 event, 1 segment right"
    assert end == "All that was looked at is right."


def test_a_folder_is_verified_against_a_database_that_is_named(office: Office, lake: Path, tmp_path: Path) -> None:
    """Nothing is left in the folder for what is done so far."""
    database = office.tide.database
    where = ("--lake", str(lake), "--database", address(database), "--work", str(tmp_path))
    assert "right" in tidelog("verify", *where, PGPASSWORD=database.server.password)
    assert [*tmp_path.iterdir()] == []
    assert "the ledger is right" in tidelog("verify", "--lake", str(lake), "--ledger-only")


def test_what_is_wrong_is_named_with_what_to_do(office: Office) -> None:
    """By the object, and by keys, but never by another value of a row; the status is 1."""
    [key] = office.tide.lake.keys("data/public.t/")
    body = office.tide.lake.body(key)
    s3, bucket = office.tide.lake.s3, office.tide.lake.bucket
    s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    try:
        shown = refused(office, "verify")
        assert f"{key}: its compressed data break off" in shown
        assert "public.t: key 7 is not in the lake" in shown
        assert "public.t: 50 rows are not what the table says: tidelog backfill public.t --all" in shown
        assert "put it back from a copy of the lake" in shown
        assert "@example.com" not in shown
        assert shown.count(" key ") == 20
        answer = json.loads(refused(office, "verify", "public.t", "--json"))
        [table] = answer["tables"]
        assert (answer["right"], len(table["keys"]), table["differing"]) == (False, 50, 50)
        assert "rows" not in json.loads(refused(office, "verify", "--ledger-only", "--json"))["tables"][1]["verdict"]
    finally:
        s3.put_object(Bucket=bucket, Key=key, Body=body)
    assert "right" in office.tidelog("verify")


def test_what_can_not_be_asked_is_said(office: Office, lake: Path) -> None:
    """A database that is not there proves nothing; a lake without a database needs to be told so."""
    nowhere = "postgresql://nobody:x@127.0.0.1:1/none"
    assert "rows not compared" in refused(office, "verify", "--lake", str(lake), "--database", nowhere)
    done = CliRunner().invoke(app, ["verify", "--lake", str(lake)], env={"TIDELOG_DATABASE": None})
    assert (done.exit_code, "--ledger-only" in done.output) == (2, True)
    done = CliRunner().invoke(app, ["verify", "public.none", "--ledger-only", "--lake", str(lake)])
    assert (done.exit_code, "there is no ledger of public.none" in done.output) == (2, True)
