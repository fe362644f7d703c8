"""Every command of the documents is run as it stands, by a shell, on a deployed stack."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from tests.chaos.plan import ROOT
from tests.conftest import CreateDatabase
from tests.stack.command import address, environment, tidelog
from tests.stack.office import PARAMETERS, Office
from tidelog.letters import Received
from tidelog.messages import decode
from tidelog_sandbox import shop
from tidelog_sandbox.sandbox import Sandbox

ORDERS, PLANS = "public.sales_order", ("public.sales_order", "public.payment")
COMMAND = re.compile(r"(tidelog |aws |python |export |umask |echo |rm |for |output\(\)|[A-Z_]+=).*")
"""`make` is run by whoever runs the tests, `sam` by those of the template."""
ADDRESSES = ("postgresql://admin@db.example.com:5432/shop", "postgresql://user@host:5432/db")
PLACES = {'PATH="$PWD/.venv/bin:$PATH"': 'PATH="$PATH"'}
"""What stands for something else."""


def commands(name: str) -> list[str]:
    """Return the commands of a document, in order."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"^```.+?^```$", "", text, flags=re.DOTALL | re.MULTILINE).replace("\\\n", "")
    return [line for line in re.findall(r"^    (\S.*)$", text, re.MULTILINE) if COMMAND.match(line)]


DOCUMENTS = [
    name
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if commands(name := str(path.relative_to(ROOT)))
]


@pytest.fixture(scope="module")
def office(create_database: CreateDatabase) -> Iterator[Office]:
    """The shop, ingested once; a chunk is as small as can be."""
    with create_database() as database:
        with database.session() as owner:
            shop.create(owner)
        server = database.server.credentials(database.name)
        content = {name: getattr(server, name) for name in server.__struct_fields__} | {"engine": "postgres"}
        parameters = {**PARAMETERS, "ChunkMegabytes": "1"}
        with Sandbox(ROOT / "template.yaml", parameters=parameters, database=content) as sandbox:
            office = Office(sandbox, database)
            sandbox.start_mappings()
            office.tick()
            yield office


def placeholders(office: Office) -> dict[str, str]:
    """Make what the runbook speaks of: dead letters, and plans that stand still. Return what to write for them."""
    office.tide.run("ALTER TABLE sales_order RENAME TO other")
    for table in ("public.gone", ORDERS):
        office.send(f'{{"version":1,"type":"ingest","table":"{table}"}}')
    office.settle()
    office.tide.run("ALTER TABLE other RENAME TO sales_order")
    letters = json.loads(office.tidelog("dead-letters", "list", "--json"))
    [gone] = [letter["id"] for letter in letters if letter["table"] == "public.gone"]
    received = Received("m", "r", "", "q", "g", 1, "2026-11-23T12:00:00+00:00")
    plans = {}
    for table in PLANS:
        message = decode(f'{{"version":1,"type":"backfill","table":"{table}","all":true}}')
        office.tide.jobs().do(message, received, seconds=60)
        plans[f" {table}/12 "] = f" {table}/{office.tide.state(table).plans[0].number} "
    return {" ID ": f" {gone} ", **plans}


class Shell:
    """A shell, which remembers what was set; `tidelog` runs in this process, which is faster."""

    def __init__(self, directory: Path, variables: dict[str, str]) -> None:
        self._directory = directory
        self._variables = variables

    def run(self, command: str) -> None:
        """Run a command, which must succeed."""
        if command.startswith("tidelog ") and not re.search(r"[|<>;$]", command):
            with chdir(self._directory):
                tidelog(*shlex.split(command)[1:], **self._variables)
            return
        left = self._directory / ".left"
        done = subprocess.run(
            ["/bin/bash", "-c", f"set -ea\n{command}\nenv -0 > {left}"],
            cwd=self._directory,
            env=environment() | self._variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, (command, done.stderr, done.stdout)
        self._variables |= dict(each.split("=", 1) for each in left.read_text().split("\0") if each)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_of_a_document_does_what_it_should(name: str, office: Office, tmp_path: Path) -> None:
    """One after the other, in one shell, on the stack that they name."""
    (tmp_path / "tidelog.toml").write_text('include = ["public.*"]\n', encoding="utf-8")
    shell = Shell(tmp_path, {**office.sandbox.environment, **variables(office)})
    # Version 1 of aws takes the address of SQS from the environment only where it is told so.
    shell.run('aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }')
    places = PLACES | dict.fromkeys(ADDRESSES, address(office.tide.database))
    replaced = places | (placeholders(office) if "runbook" in name else {})
    for command in commands(name):
        for text, instead in replaced.items():
            command = command.replace(text, instead)  # noqa: PLW2901 - that is the point
        shell.run(command)


def test_the_role_of_the_quick_start_may_read_all_that_it_should(office: Office) -> None:
    """Tables that come later included."""
    [sql] = re.findall(r"```sql\n(CREATE ROLE.+?)```", (ROOT / "docs" / "quickstart.md").read_text("utf-8"), re.DOTALL)
    database = office.tide.database
    office.tide.run(*sql.split(";\n")[:-1], "CREATE TABLE later (id int)")
    try:
        said = tidelog("tables", "--database", address(database, "tidelog"), PGPASSWORD="a long one")
        assert "12 tables to ingest" in said
        assert "all of them can be" in said
    finally:
        office.tide.run("DROP TABLE later", "DROP OWNED BY tidelog", "DROP ROLE tidelog")


def variables(office: Office) -> dict[str, str]:
    """Return what a person who has come so far has set."""
    outputs, database = office.sandbox.outputs, office.tide.database
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "PGPASSWORD": database.server.password,
        "WORK_QUEUE_URL": outputs["WorkQueueUrl"],
        "BACKFILL_QUEUE_URL": outputs["BackfillQueueUrl"],
        "SCHEDULER_FUNCTION": outputs["SchedulerFunction"],
        **network(office),
    }


def network(office: Office) -> dict[str, str]:
    """Return where a database in a VPC is."""
    ec2 = office.sandbox.client("ec2")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    here = [{"Name": "vpc-id", "Values": [vpc]}]
    return {
        "VPC": vpc,
        "DATABASE_GROUP": ec2.describe_security_groups(Filters=here)["SecurityGroups"][0]["GroupId"],
        "ROUTES": ec2.describe_route_tables(Filters=here)["RouteTables"][0]["RouteTableId"],
        "SUBNETS": " ".join(subnet["SubnetId"] for subnet in ec2.describe_subnets(Filters=here)["Subnets"][:2]),
    }
