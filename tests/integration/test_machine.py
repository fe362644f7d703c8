"""Whatever happens in whatever order: after a sweep the lake is the table, and nothing came twice unannounced."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.conftest import Aws
from tests.integration.machine import Machine
from tidelog_sandbox.postgres import Postgres

SECONDS = float(os.environ.get("TIDELOG_CHAOS_SECONDS", "0"))
EXAMPLES, STEPS = 6, 50
# A step can't be taken back, and a server is none the same twice: nothing is made simpler, or tried from a memory.
SETTINGS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
    database=None,
    deadline=None,
    print_blob=True,
)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server that loses in a crash what nobody has waited for."""
    with Postgres(settings={"wal_writer_delay": "200ms", "autovacuum": "off"}) as postgres:
        yield postgres


def test_the_lake_is_the_database_whatever_happens_in_whatever_order(postgres: Postgres, aws: Aws) -> None:
    """For TIDELOG_CHAOS_SECONDS, or a few hundred steps."""

    class Here(Machine):
        def __init__(self) -> None:
            super().__init__(postgres, aws)

    end, done = time.monotonic() + SECONDS, 0
    while not done or time.monotonic() < end:
        run_state_machine_as_test(Here, settings=SETTINGS)
        done += EXAMPLES
        left = max(0.0, end - time.monotonic()) / 60
        print(f"{done} times up to {STEPS} steps, {left:.0f} min left", flush=True)  # noqa: T201 - for who waits
