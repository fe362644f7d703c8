"""Idle tables in the deployed template: ticks ask for what has changed, for what failed, and in turn for all."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.chaos.plan import ROOT
from tests.conftest import CreateDatabase
from tests.stack.office import PARAMETERS, Office
from tidelog.memory import KEY
from tidelog_sandbox.sandbox import Sandbox

TABLES = ("closed", "orders", "staff")
"""None of them has its turn to be looked at in the first ticks."""


@pytest.fixture(scope="module")
def office(create_database: CreateDatabase, server_role: str) -> Iterator[Office]:
    """Three tables, and a role that may read two of them."""
    with create_database() as database:
        database.run(
            *(f"CREATE TABLE {table} AS SELECT 1 AS id" for table in TABLES),
            f"GRANT SELECT ON orders, staff TO {server_role}",
            "SELECT pg_stat_force_next_flush()",
        )
        to = database.server.credentials(database.name, server_role)
        content = {name: getattr(to, name) for name in to.__struct_fields__} | {"engine": "postgres"}
        with Sandbox(ROOT / "template.yaml", parameters=PARAMETERS, database=content) as sandbox:
            sandbox.start_mappings()
            yield Office(sandbox, database)
        database.run(f"DROP OWNED BY {server_role}")


def tick(office: Office, number: int) -> list[str]:
    """Run a tick of the schedule, and all that comes of it; return the tables that it has asked for."""
    due = f"2026-11-23T{12 + number // 60}:{number % 60:02}:00Z"
    done = office.sandbox.invoke(office.sandbox.outputs["SchedulerFunction"], {"scheduled_time": due})
    assert done.succeeded, done
    office.settle()
    asked = [table.removeprefix("public.") for table in done.response["tables"]]
    assert done.response["unchanged"] == 3 - len(asked)
    [logged] = [json.loads(line) for line in done.log if '"tick done"' in line]
    assert (logged["tables"], logged["unchanged"]) == (len(asked), 3 - len(asked))
    return asked


def test_ticks_ask_for_what_has_changed_or_failed_and_in_turn_for_all(office: Office) -> None:
    """The whole way: statistics, messages, runs, summaries, and what one tick leaves to the next."""
    run = office.tide.run
    assert tick(office, 0) == ["closed", "orders", "staff"]
    assert tick(office, 1) == ["closed"]
    run("INSERT INTO orders VALUES (2)", "SELECT pg_stat_force_next_flush()")
    assert tick(office, 2) == ["closed", "orders"]
    assert office.tide.values("id", "public.orders") == [1, 2]
    run(f"GRANT SELECT ON closed TO {role(office)}")
    assert tick(office, 3) == ["closed"]
    asked = Counter(table for number in range(4, 16) for table in tick(office, number))
    assert asked == dict.fromkeys(TABLES, 1)
    told = json.loads(office.tidelog("status", "--json"))
    assert (told["tick"]["tables"], told["tick"]["unchanged"]) == (3, 3)
    remembered = json.loads(gzip.decompress(office.tide.lake.body(KEY)))
    assert (remembered["number"], remembered["asked"]) == (15, {})
    assert {each["fresh_as_of"][:23] for each in told["tables"]} == {remembered["at"][:23]}
    assert json.loads(office.tidelog("run", "--json"))["tables"] == [f"public.{table}" for table in TABLES]


def role(office: Office) -> str:
    """Return the role that the stack connects as."""
    found: str = office.tide.database.one("SELECT relacl[2]::text FROM pg_class WHERE relname = 'orders'")
    return found.partition("=")[0]
