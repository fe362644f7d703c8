"""Every trouble at once, for as long as TIDELOG_CHAOS_SECONDS says, as TIDELOG_CHAOS_SEED says."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.chaos.stack import Stack, deployed, hold
from tests.chaos.storm import Storm
from tests.integration.test_concurrency import SCHEMA, TABLES
from tests.tide import Database, Server
from tidelog_sandbox import Postgres

SECONDS = float(os.environ.get("TIDELOG_CHAOS_SECONDS", "20"))
SEED = int(os.environ.get("TIDELOG_CHAOS_SEED", random.SystemRandom().getrandbits(32)))
# What nobody waits for is on disk after half a second or so; a crash loses what is not.
SETTINGS = {"wal_writer_delay": "500ms", "deadlock_timeout": "20ms"}
# What a transaction has written it also writes down in a table that is not ingested, and that is lost with it.
HISTORY = [
    "CREATE TABLE history (name text, id int, version bigint)",
    """CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN INSERT INTO public.history VALUES (TG_ARGV[0], NEW.id, NEW.version); RETURN NULL; END $$""",
    *(
        f"CREATE TRIGGER remember AFTER INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION remember('{table}')"
        for table in TABLES
    ),
]


def settle(stack: Stack) -> None:
    """Work off what is left, then the newest."""
    stack.release()
    stack.wait()
    for _ in range(2):
        stack.invocations.clear()
        assert stack.tick().succeeded
        stack.wait()
    runs = [run for run in stack.invocations if run.record]
    assert len(runs) == len(TABLES)
    assert all(run.succeeded and not run.response["batchItemFailures"] for run in runs), runs


def test_the_lake_is_the_database_after_a_storm(tmp_path: Path) -> None:
    """Nothing lost, nothing twice, nothing that the database never committed or lost in a crash."""
    print(f"TIDELOG_CHAOS_SEED={SEED}")  # noqa: T201 - pytest shows it where the test fails
    parameters = {"TimeBoundMegabytes": "0", "ExcludeTables": "public.history"}
    with Postgres(settings=SETTINGS) as postgres:
        database = Database(Server(postgres.port, postgres.password), "postgres")
        database.run(*SCHEMA, *HISTORY)
        with deployed(database, tmp_path, parameters=parameters, conflicts=True) as stack:
            stack.eager = True
            stack.sandbox.start_mappings()
            storm = Storm(stack, postgres, SEED)
            database.close()
            storm.rage(SECONDS)
            database.reconnect()
            settle(stack)
            print(storm.counts, {table: len(stack.tide.events(table)) for table in TABLES})  # noqa: T201 - the same
            assert all(storm.counts[trouble.__name__] for trouble, *_ in storm.troubles), storm.counts
            hold(stack.tide, TABLES)
            for table in TABLES:
                committed = {(i, v) for i, v in database.run(f"SELECT id, version FROM history WHERE name = '{table}'")}
                assert {(row["id"], row["version"]) for row in stack.tide.rows(table)} <= committed
            # The same tables again, from nothing but the ledger.
            stack.forget()
            settle(stack)
            hold(stack.tide, TABLES)
        database.close()
