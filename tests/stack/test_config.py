"""`tidelog config`, on the deployed template: pushed, applied at the next tick, broken, mended."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CreateDatabase
from tests.stack.command import TIDELOG, Folder, environment, tidelog
from tests.tide import Database, Lake, Tide
from tidelog_sandbox.functions import Invocation
from tidelog_sandbox.sandbox import Sandbox

TEMPLATE = Path(__file__).parents[2] / "template.yaml"
PARAMETERS = {
    "AdminEmail": "admin@example.com",
    "DatabaseTls": "disable",
    "Schedule": "rate(1 day)",
    "ExcludeTables": "public.customers",
}
MINUTE = 0.5
SECONDS = 60
DOCUMENT = """
exclude = ["public.staff"]

[tables."public.*"]
exclude_columns = ["email"]
look_back_seconds = 60

[tables."public.customers"]
strategy = "xmin"
"""


def run(*command: str, status: int = 0, **variables: str) -> str:
    """Run `tidelog config`; return what it printed."""
    if not status:
        return tidelog("config", *command, **variables)
    done = subprocess.run(
        [TIDELOG, "config", *command],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


class Desk:
    """A deployed stack and its operator."""

    def __init__(self, sandbox: Sandbox, database: Database, file: Path) -> None:
        self.sandbox = sandbox
        self.file = file
        outputs = sandbox.outputs
        lake = Lake(sandbox.client("s3"), sandbox.client("ssm"), outputs["LakeBucket"], outputs["ParameterPrefix"])
        self.tide = Tide(database, lake)

    def config(self, *command: str, status: int = 0, stack: str = "tidelog") -> str:
        """Run `tidelog config` on the stack."""
        return run(*command, status=status, TIDELOG_STACK=stack, **self.sandbox.environment)

    def push(self, text: str, *options: str, status: int = 0, stack: str = "tidelog") -> str:
        """Push a document."""
        self.file.write_text(text, encoding="utf-8")
        return self.config("push", str(self.file), *options, status=status, stack=stack)

    def tick(self) -> Invocation:
        """Run a tick, and wait until its messages are worked off."""
        tick = self.sandbox.invoke(self.sandbox.outputs["SchedulerFunction"], {})
        self.sandbox.wait_until_idle(SECONDS)
        return tick


@pytest.fixture(scope="module")
def desk(create_database: CreateDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """The template over a database of two tables; a minute of its alarms lasts half a second."""
    with create_database() as database:
        database.run(
            "CREATE TABLE customers AS SELECT 1 AS id, 'canary' AS email", "CREATE TABLE staff AS SELECT 1 AS id"
        )
        to = database.server.credentials(database.name)
        content = {name: getattr(to, name) for name in to.__struct_fields__} | {"engine": "postgres"}
        with Sandbox(TEMPLATE, parameters=PARAMETERS, database=content) as sandbox:
            sandbox.start_alarms(minute=MINUTE)
            sandbox.start_mappings()
            yield Desk(sandbox, database, tmp_path_factory.mktemp("config") / "tidelog.toml")


def test_a_pushed_document_counts_from_the_next_tick_and_a_broken_one_is_told_of_and_loses_nothing(desk: Desk) -> None:
    """Pushed by the command line; broken by hand; mended by the command line."""
    assert "Nothing is configured" in desk.config("show")
    assert desk.tick().response["tables"] == ["public.staff"]
    told = desk.push(DOCUMENT)
    assert '[tables."public.*"] exclude_columns: not set → email' in told
    assert told.endswith("wrote version 1\n")
    tick = desk.tick()
    assert (tick.response["tables"], tick.response["configuration"]) == (["public.customers"], 1)
    assert desk.tide.rows("public.customers") == [{"id": 1}]
    assert b"canary" not in b"".join(desk.tide.lines("public.customers"))

    name = f"{desk.sandbox.outputs['ParameterPrefix']}/configuration"
    desk.sandbox.client("ssm").put_parameter(Name=name, Value="exlude = []", Type="String", Overwrite=True)
    desk.tide.run("INSERT INTO customers VALUES (2, 'canary')")
    broken = desk.tick()
    assert not broken.succeeded
    assert "version 2 of the configuration: exlude is no setting: did you mean exclude?" in str(broken.error)
    desk.sandbox.wait_for_email(lambda mail: mail.subject.startswith('ALARM: "tidelog-scheduler-errors"'), SECONDS)
    assert "did you mean exclude?" in desk.config("show", status=1)

    assert "the version before could not be used" in desk.push(DOCUMENT)
    tick = desk.tick()
    assert (tick.response["tables"], tick.response["configuration"]) == (["public.customers"], 3)
    assert desk.tide.rows("public.customers") == [{"id": 1}, {"id": 2}]
    desk.tide.check("public.customers")


def test_what_does_not_fit_a_table_lies_in_the_dead_letters_until_it_is_mended(desk: Desk) -> None:
    """Others go on; a redriven letter goes by what is mended since."""
    desk.push('exclude = []\n[tables."public.staff"]\nexclude_columns = ["nmae"]\n')
    desk.tide.run("ALTER TABLE staff ADD name text", "INSERT INTO staff VALUES (2, 'canary')")
    desk.tick()
    dead_letters = [TIDELOG, "dead-letters"]
    variables = environment(**desk.sandbox.environment, TIDELOG_STACK="tidelog")
    listed = subprocess.run([*dead_letters, "list", "--json"], env=variables, capture_output=True, check=True)
    [letter] = json.loads(listed.stdout)
    assert (letter["table"], letter["failure"]["error"]) == ("public.staff", "InvalidSetting")
    assert "it has no column nmae" in letter["failure"]["reason"]
    assert "Did you mean name?" in letter["failure"]["hint"]
    told = json.loads(desk.push('exclude = []\n[tables."public.staff"]\nexclude_columns = ["name"]\n', "--json"))
    assert told["changes"] == ['[tables."public.staff"] exclude_columns: nmae → name']
    subprocess.run([*dead_letters, "redrive"], env=variables, check=True, capture_output=True)
    desk.sandbox.wait_until_idle(SECONDS)
    assert desk.tide.rows("public.staff") == [{"id": 1}, {"id": 2}]


def test_a_document_that_cannot_be_used_is_not_pushed(desk: Desk) -> None:
    """One line says why, and what is there stays; what is there already is not written again."""
    version = json.loads(desk.push(DOCUMENT, "--json"))["version"]
    assert "look_back_second is no setting" in desk.push('[tables."a.b"]\nlook_back_second = 5', status=1)
    assert desk.push(DOCUMENT) == f"nothing has changed since version {version}\n"


def test_a_document_may_be_there_before_the_stack(desk: Desk) -> None:
    """Under the name that the stack will have, and up to 8 KiB; a misspelt name is seen by what is said."""
    large = DOCUMENT + "#" * (8192 - len(DOCUMENT))
    assert "There is no stack newcomer here yet" in desk.push(large, stack="newcomer")
    parameter = desk.sandbox.client("ssm").get_parameter(Name="/tidelog/newcomer/configuration")["Parameter"]
    assert parameter["Value"] == large
    assert "version 1\n" in desk.config("show", stack="newcomer")


def test_a_document_is_checked_without_any_stack(tmp_path: Path) -> None:
    """What it means, as a table or as JSON; status 1 and the reason if it can't be used."""
    file = tmp_path / "tidelog.toml"
    file.write_text(DOCUMENT, encoding="utf-8")
    told = [line.split() for line in run("check", str(file)).splitlines()]
    assert ["exclude:", "public.staff"] in told
    assert ["include:", "as", "IncludeTables", "of", "the", "stack"] in told
    assert ["public.*", "email", "60"] in told
    assert json.loads(run("check", str(file), "--json")) == {
        "include": None,
        "exclude": ["public.staff"],
        "tables": {
            "public.*": {"exclude_columns": ["email"], "look_back_seconds": 60},
            "public.customers": {"strategy": "xmin"},
        },
        "version": None,
    }
    file.write_text("x = 1", encoding="utf-8")
    assert (
        run("check", str(file), status=1)
        == f"tidelog: read {file}: x is no setting: there are include, exclude, tables\n"
    )


def test_a_local_run_goes_by_a_file(database: Database, tmp_path: Path) -> None:
    """What it says wins over the options."""
    database.run("CREATE TABLE customers AS SELECT 1 AS id, 'canary' AS email", "CREATE TABLE staff AS SELECT 1 AS id")
    folder, file = Folder(database, tmp_path / "lake"), tmp_path / "tidelog.toml"
    file.write_text(DOCUMENT, encoding="utf-8")
    done = folder.run("--config", str(file), "--exclude", "public.customers")
    assert done.returncode == 0, done.stderr
    assert (folder.rows("public.customers"), folder.rows("public.staff")) == ([{"id": 1}], [])
