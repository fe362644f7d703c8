"""A large table that is altered: its administrator is told, and the command of the notice makes it good."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

from tests.conftest import CreateDatabase
from tests.stack.command import TIDELOG, environment
from tests.stack.test_functions import PARAMETERS, SECONDS, Stack, logged
from tests.tide import Lake, Tide
from tidelog_sandbox.sandbox import Sandbox

TEMPLATE = Path(__file__).parents[2] / "template.yaml"


def test_the_notice_of_outdated_lines_has_the_command_that_makes_them_good(create_database: CreateDatabase) -> None:
    """It is mailed once, and the log has a warning; after the backfill the lake says what the table does."""
    with create_database() as database:
        database.run("CREATE TABLE t (id int PRIMARY KEY, v text)")
        database.run("INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series(1, 10000) n")
        secret = database.server.credentials(database.name)
        content = {"host": secret.host, "port": secret.port, "dbname": secret.dbname, "engine": "postgres"}
        content |= {"username": secret.username, "password": secret.password}
        with Sandbox(TEMPLATE, parameters=PARAMETERS | {"ChunkMegabytes": "1"}, database=content) as sandbox:
            sandbox.start_mappings()
            stack, outputs = Stack(sandbox, database), sandbox.outputs
            lake = Lake(sandbox.client("s3"), sandbox.client("ssm"), outputs["LakeBucket"], outputs["ParameterPrefix"])
            tide = Tide(database, lake)
            stack.tick()
            assert len(tide.lines()) == 10_000
            database.run("ALTER TABLE t RENAME v TO w")
            stack.tick()
            [run] = stack.runs()
            [warning] = [record for record in logged(run) if record.get("level") == "WARNING"]
            assert (warning["table"], warning["outdated"]) == ("public.t", "column v was renamed to w")
            stack.tick()
            email = sandbox.wait_for_email(lambda email: "lines of public.t are outdated" in email.subject, SECONDS)
            assert sum("outdated" in each.subject for each in sandbox.emails) == 1
            [command] = re.findall(r"^    (tidelog .+)$", email.body, re.MULTILINE)
            subprocess.run(
                [TIDELOG, *shlex.split(command)[1:]],
                env=environment(**sandbox.environment),
                check=True,
                capture_output=True,
                timeout=SECONDS,
            )
            sandbox.wait_until_idle(SECONDS)
            assert tide.latest() == tide.table()
            tide.check()
