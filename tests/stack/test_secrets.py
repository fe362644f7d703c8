"""No secret anywhere: all that a stack has written is searched for passwords and for what stands in rows."""

from __future__ import annotations

import base64
import gzip
import json
import os
import traceback
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import psutil
import pytest
from typer.testing import CliRunner

from tests.chaos.plan import ROOT
from tests.conftest import CreateDatabase
from tests.sandbox.conftest import taken
from tests.stack.command import address, environment
from tests.stack.office import PARAMETERS, Office
from tidelog_cli.main import app
from tidelog_sandbox import Invocation
from tidelog_sandbox.sandbox import Sandbox

PASSWORD, OTHER, ROW = "canary-P4ss/w+rd", "canary-0ther/p+ss", "canary-r0w/v+lue"
NUMBER = "31415926.53589793"
COLUMNS = "id int PRIMARY KEY, v text, j jsonb, n numeric, b bytea, updated_at timestamptz"
TABLES = ("public.fine", "public.closed", "public.quoting", "public.guarded")


class Ears:
    """All that was written, where it was."""

    def __init__(self) -> None:
        self.heard: dict[str, bytes] = {}

    def hear(self, where: str, what: object) -> None:
        """Keep something."""
        data = what if isinstance(what, bytes) else str(what).encode(errors="surrogateescape")
        self.heard[f"{where} ({len(self.heard)})"] = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data

    def places_of(self, *canaries: str) -> list[str]:
        """Return where any of some texts stands, in any of the forms that a text takes."""
        forms = [form for canary in canaries for form in _forms(canary)]
        return [where for where, data in self.heard.items() if any(form in data for form in forms)]


def _forms(text: str) -> list[bytes]:
    """Return a text as it is, quoted for a URL or JSON, in hexadecimal digits, and in base64 at each of its places."""
    data = text.encode()
    base64s = [base64.b64encode(b"x" * shift + data)[4 if shift else 0 : -4] for shift in range(3)]
    return [data, quote(text, safe="").encode(), data.replace(b"/", b"\\/"), data.hex().encode(), *base64s]


class Vault(Office):
    """A stack whose password is a canary, and a role that may read some of the tables."""

    def __init__(self, sandbox: Sandbox, database: Any, role: str, ears: Ears) -> None:
        super().__init__(sandbox, database)
        self.role = role
        self.ears = ears
        self.invocations: list[Invocation] = []
        sandbox.on_invocation(self.invocations.append)
        sandbox.on_log(lambda function, line: ears.hear(f"log of {function}", line))

    def say(self, **secret: Any) -> None:
        """Have the secret say something else."""
        content = {"host": "127.0.0.1", "port": self.tide.database.server.port, "dbname": self.tide.database.name}
        text = secret.pop("text", json.dumps({**content, "username": self.role, **secret}))
        self.sandbox.client("secretsmanager").put_secret_value(SecretId="tidelog-database", SecretString=text)
        for function in self.sandbox.functions.values():
            function.reap()  # Its connection would go on.

    def command(self, *command: str) -> str:
        """Run `tidelog`; keep and return what it printed, and what it died of."""
        variables = {**self.sandbox.environment, "TIDELOG_STACK": "tidelog", "COLUMNS": "300", "PGPASSWORD": PASSWORD}
        mine = environment(**variables)
        done = CliRunner().invoke(app, command, env={**dict.fromkeys(os.environ.keys() - mine.keys()), **variables})
        self.ears.hear(f"tidelog {' '.join(command)}", done.output)
        if done.exception:
            self.ears.hear(f"tidelog {' '.join(command)} died", "".join(traceback.format_exception(done.exception)))
        return done.output

    def look_at_processes(self) -> None:
        """Keep how all that runs was called, and what the processes of functions were given."""
        children = {process.pid for process in psutil.Process().children(recursive=True)}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                self.ears.hear("command line of a process", "\0".join(process.cmdline()))
                if process.pid in children and "awslambdaric" in " ".join(process.cmdline()):
                    self.ears.hear("environment of a process", json.dumps(process.environ()))

    def look_at_aws(self) -> None:
        """Keep every version of every object but segments, every parameter, message, event, email and log of AWS."""
        s3, bucket = self.sandbox.client("s3"), self.tide.lake.bucket
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            for version in page.get("Versions", []):
                key = version["Key"]
                found = s3.get_object(Bucket=bucket, Key=key, VersionId=version["VersionId"])
                kind = "segment" if key.startswith("data/") else "object"
                self.ears.hear(f"{kind} {key}", found["Body"].read())
                self.ears.hear("headers of an object", found["Metadata"])
        ssm = self.sandbox.client("ssm")
        for page in ssm.get_paginator("get_parameters_by_path").paginate(Path="/", Recursive=True):
            for parameter in page["Parameters"]:
                self.ears.hear("parameter", ssm.get_parameter_history(Name=parameter["Name"])["Parameters"])
        for queue in ("DeadLettersUrl", "WorkQueueUrl", "BackfillQueueUrl", "MissedTicksUrl"):
            self.ears.hear(queue, taken(self.sandbox, self.sandbox.outputs[queue]))
        for email in self.sandbox.emails:
            self.ears.hear("email", f"{email.subject}\n{email.body}")
        described = self.sandbox.client("cloudformation").describe_stacks(StackName="tidelog")
        self.ears.hear("stack", described["Stacks"])
        for name in self.sandbox.functions:
            self.ears.hear("function", self.sandbox.client("lambda").get_function(FunctionName=name))


@pytest.fixture(scope="module")
def vault(create_database: CreateDatabase, server_role: str) -> Iterator[Vault]:
    """Four tables: one may not be read, one has a row that fails with its value, one has rows that are hidden."""
    ears = Ears()
    with create_database() as database, pytest.MonkeyPatch.context() as patch:
        database.run(
            f"ALTER ROLE {server_role} PASSWORD '{PASSWORD}'",
            *(f"CREATE TABLE {table} ({COLUMNS})" for table in TABLES),
            *(
                f"INSERT INTO {table} SELECT n, '{ROW}', '[\"{ROW}\"]', {NUMBER}, '{ROW}', now() "
                "FROM generate_series(1, 20) n"
                for table in TABLES
            ),
            "ALTER TABLE quoting ADD COLUMN bad int GENERATED ALWAYS AS (v::int) VIRTUAL",
            "ALTER TABLE guarded ENABLE ROW LEVEL SECURITY",
            f"GRANT SELECT ON fine, quoting, guarded TO {server_role}",
        )
        to = database.server.credentials(database.name, server_role)
        content = {name: getattr(to, name) for name in ("host", "port", "dbname", "username")}
        patch.setenv("PGPASSWORD", PASSWORD)  # The functions are not to inherit it.
        settings = PARAMETERS | {"LogLevel": "DEBUG", "RetrySeconds": "1", "Tries": "2"}
        secret = content | {"password": PASSWORD, "engine": "postgres"}
        with Sandbox(ROOT / "template.yaml", parameters=settings, database=secret) as sandbox:
            vault = Vault(sandbox, database, server_role, ears)
            sandbox.start_mappings()
            yield vault
        database.run(f"DROP OWNED BY {server_role}")


def test_neither_a_password_nor_a_row_is_written_anywhere_but_into_segments(vault: Vault) -> None:
    """In logs at their most talkative, events, dead letters, emails, parameters, answers, `--json`, process lists.

    Whatever fails: reads, logins by wrong passwords, a secret that is no JSON, a tampered lake, an altered table.
    """
    run, here = vault.tide.run, address(vault.tide.database, vault.role)
    vault.tick()
    run(f"UPDATE fine SET v = v || '{ROW}'", "ALTER TABLE fine ADD COLUMN later text DEFAULT '-'")
    vault.tick()
    for kind in ('"sweep"', '"backfill","all":true', '"backfill","from":"2020-01-01","to":"2030-01-01"'):
        for table in TABLES:
            vault.send(f'{{"version":1,"type":{kind},"table":"{table}"}}')
    vault.settle()
    run("UPDATE fine SET id = id + 100 WHERE id < 5; DELETE FROM fine WHERE id = 7")
    for command in (
        ("status",), ("tables",), ("history", TABLES[0]), ("dead-letters", "list"), ("backfill", "list"), ("cost",),
        ("run", *TABLES), ("verify", "--database", here), ("verify", "--ledger-only"), ("config", "show"),
        ("backfill", TABLES[2], "--from", "2020-01-01", "--to", "2030-01-01"), ("rebuild", "--dry-run"),
        ("tables", "--database", here),
        ("verify", "--database", here.replace("@", f":{quote(OTHER, safe='')}@"), TABLES[0]),
    ):  # fmt: skip
        vault.command(*command, "--json")
    for command in (("status",), ("tables",), ("history", TABLES[0]), ("dead-letters", "list"), ("verify", TABLES[0])):
        vault.command(*command)
    vault.look_at_processes()
    for said in (
        {"password": OTHER},
        {"password": OTHER, "ca": OTHER},
        {"password": OTHER, "port": OTHER},
        {"text": OTHER},
    ):
        vault.say(**said)
        response = vault.sandbox.invoke(vault.sandbox.outputs["SchedulerFunction"], {})
        assert not response.succeeded
    vault.say(password=OTHER)
    vault.send('{"version":1,"type":"ingest","table":"public.fine"}')
    vault.settle()
    listed = vault.command("dead-letters", "list", "--json")
    vault.command("dead-letters", "show", json.loads(listed)[0]["id"], "--json")
    vault.command("verify", TABLES[0])
    for invocation in vault.invocations:
        vault.ears.hear("invocation", (invocation.payload, invocation.response, invocation.error, invocation.log))
    vault.look_at_aws()

    assert "password authentication failed" in listed
    assert "may quote a row" in listed
    assert vault.ears.places_of("password authentication failed")
    segments = vault.ears.places_of(ROW)
    assert segments, "rows are in the lake, and the search finds them"
    assert not [place for place in segments if not place.startswith("segment data/")]
    assert not [place for place in vault.ears.places_of(NUMBER) if not place.startswith("segment data/")]
    assert vault.ears.places_of(PASSWORD, OTHER) == []
    kinds = {place.partition(" ")[0] for place in vault.ears.heard}
    assert kinds >= {"log", "tidelog", "object", "segment", "parameter", "DeadLettersUrl", "email", "command", "stack"}
