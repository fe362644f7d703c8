"""What becomes of a message that fails: tried again, buried, told of by email, sent back by an operator."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CreateDatabase
from tests.sandbox.conftest import taken
from tests.stack.command import TIDELOG, environment, kill_waiting, tidelog
from tests.tide import Database, wait_for
from tidelog.deadletters import DeadLetters, Letter
from tidelog_sandbox.functions import Invocation
from tidelog_sandbox.sandbox import Sandbox

TEMPLATE = Path(__file__).parents[2] / "template.yaml"
PARAMETERS = {
    "AdminEmail": "admin@example.com",
    "DatabaseTls": "disable",
    "Schedule": "rate(1 day)",
    "RetrySeconds": "1",
    "Tries": "3",
    "LockSeconds": "1",
    "StaleSeconds": "60",
    "HorizonSeconds": "60",
}
SECONDS = 60


class Office:
    """A deployed stack, seen by its operator."""

    def __init__(self, sandbox: Sandbox, database: Database, role: str) -> None:
        self.sandbox = sandbox
        self.database = database
        self.role = role
        self.runs: list[Invocation] = []
        sandbox.on_invocation(self.runs.append)

    def send(self, body: str, group: str) -> None:
        """Put a message on the work queue."""
        self.sandbox.client("sqs").send_message(
            QueueUrl=self.sandbox.outputs["WorkQueueUrl"],
            MessageBody=body,
            MessageGroupId=group,
            MessageDeduplicationId=uuid.uuid4().hex,
        )

    def ingest(self, table: str) -> None:
        """Ask for a table."""
        self.send(json.dumps({"version": 1, "type": "ingest", "table": table}), table)

    def settle(self) -> None:
        """Wait until every message is worked off or among the dead letters."""
        self.sandbox.wait_until_idle(SECONDS)

    def tidelog(self, *command: str, status: int = 0) -> str:
        """Run the command line on the stack; return what it printed."""
        if not status:
            return tidelog("dead-letters", *command, **self.sandbox.environment, TIDELOG_STACK="tidelog")
        done = subprocess.run(
            [TIDELOG, "dead-letters", *command],
            env=environment(**self.sandbox.environment, TIDELOG_STACK="tidelog"),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout or done.stderr

    def letters(self) -> list[dict[str, Any]]:
        """List the dead letters."""
        letters: list[dict[str, Any]] = json.loads(self.tidelog("list", "--json"))
        return letters

    def outcomes(self, table: str) -> list[str]:
        """Return what the runs of a table came to."""
        logged = [json.loads(line) for run in self.runs for line in run.log if line.startswith("{")]
        return [
            record.get("outcome") or f"{record['error']} {record['then']}"
            for record in logged
            if record.get("message") in ("run done", "run failed") and record.get("table") == table
        ]


@pytest.fixture(scope="module")
def office(create_database: CreateDatabase, server_role: str) -> Iterator[Office]:
    """The template over a database whose role may read what it is granted."""
    with create_database() as database:
        database.run(
            *(f"CREATE TABLE {name} AS SELECT 1 AS id" for name in ("orders", "staff", "notes", "stuck")),
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {server_role}",
        )
        to = database.server.credentials(database.name, server_role)
        content = {name: getattr(to, name) for name in to.__struct_fields__} | {"engine": "postgres"}
        with Sandbox(TEMPLATE, parameters=PARAMETERS, database=content) as sandbox:
            sandbox.start_mappings()
            yield Office(sandbox, database, server_role)
        database.run(f"DROP OWNED BY {server_role}")


def test_a_table_without_a_grant_is_buried_at_once_told_of_and_read_once_it_is_sent_back(office: Office) -> None:
    """No try is wasted; list, show and the email say what to do; one message back brings the rows of all."""
    office.database.run(f"REVOKE SELECT ON orders FROM {office.role}")
    for _ in range(3):
        office.ingest("public.orders")
    office.settle()
    assert office.outcomes("public.orders") == ["AccessDenied buried"] * 3
    letter, *more = office.letters()
    assert len(more) == 2
    assert (letter["table"], letter["queue"], letter["group"]) == (
        "public.orders",
        "tidelog-work.fifo",
        "public.orders",
    )
    assert letter["failure"]["error"] == "AccessDenied"
    assert (letter["failure"]["tries"], letter["failure"]["table"]) == (1, "public.orders")
    assert letter["failure"]["run"] in {run.request_id for run in office.runs}
    listed, shown = office.tidelog("list"), office.tidelog("show", letter["id"][:8])
    assert "public.orders" in listed
    assert 'Run GRANT SELECT ON "public"."orders" TO' in listed
    assert "permission denied for table orders" in shown
    mail = office.sandbox.wait_for_email(lambda mail: "public.orders" in mail.subject, SECONDS)
    assert mail.to == "admin@example.com"
    assert mail.subject == "[tidelog] public.orders failed with AccessDenied"
    for words in (letter["failure"]["hint"], f"show {letter['id']} --stack tidelog", "redrive --table public.orders"):
        assert words in mail.body
    office.database.run(f"GRANT SELECT ON orders TO {office.role}")
    assert "1 message would be sent back.\n2 messages that" in office.tidelog("redrive", "--dry-run")
    told = json.loads(office.tidelog("redrive", "--dry-run", "--json"))
    assert (told["dry_run"], [each["table"] for each in told["sent"]], told["removed"]) == (True, ["public.orders"], 2)
    assert len(office.letters()) == 3
    assert "1 message of public.orders sent back.\n2 messages" in office.tidelog("redrive", "--table", "public.orders")
    office.settle()
    assert office.outcomes("public.orders")[3:] == ["snapshotted"]
    assert len([mail for mail in office.sandbox.emails if "public.orders" in mail.subject]) == 1
    assert office.tidelog("list") == "The dead letters are empty.\n"


def test_a_locked_table_is_tried_again_and_again_then_moved_by_the_queue_and_sent_back(office: Office) -> None:
    """Each try later than the one before; the failure that SQS does not carry is found all the same."""
    with office.database.session() as migration:
        migration.run("BEGIN; LOCK TABLE staff IN ACCESS EXCLUSIVE MODE")
        office.ingest("public.staff")
        office.settle()
    assert office.outcomes("public.staff") == ["DatabaseBusy retried"] * 2 + ["DatabaseBusy given up"]
    assert [record["again_in_seconds"] for record in failures(office, "public.staff")] == [1, 2, 0]
    [letter] = office.letters()
    assert (letter["table"], letter["queue"], letter["failure"]["tries"]) == ("public.staff", "tidelog-work.fifo", 3)
    assert "55P03" in letter["failure"]["reason"]
    assert "end it, or wait" in office.tidelog("show", letter["id"])
    mail = office.sandbox.wait_for_email(lambda mail: "public.staff" in mail.subject, SECONDS)
    assert "3 times" in mail.body
    office.tidelog("redrive")
    office.settle()
    assert office.outcomes("public.staff")[-1] == "snapshotted"
    assert office.letters() == []


def test_what_fails_again_while_others_are_sent_back_is_a_dead_letter_again(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is neither taken for one more of the same nor sent once more, however fast it fails."""
    sent_back = DeadLetters.redrive

    def slowly(self: DeadLetters, letter: Letter, queues: Mapping[str, str]) -> None:
        sent_back(self, letter, queues)
        office.settle()

    monkeypatch.setattr(DeadLetters, "redrive", slowly)
    office.database.run(f"REVOKE SELECT ON orders FROM {office.role}")
    for table in ("public.orders", "public.orders", "public.nothing"):
        office.ingest(table)
    office.settle()
    before = {letter["id"] for letter in office.letters()}
    told = office.tidelog("redrive")
    assert "2 messages sent back.\n1 message that asks for the same removed: one run reads all.\n" in told
    after = {letter["id"]: letter["table"] for letter in office.letters()}
    assert sorted(after.values()) == ["public.nothing", "public.orders"]
    assert not before & after.keys()
    monkeypatch.undo()
    office.database.run(f"GRANT SELECT ON orders TO {office.role}")
    office.tidelog("redrive", "--table", "public.orders")
    office.settle()
    [left] = office.letters()
    office.tidelog("drop", left["id"])


POISON = {
    '{"version":1,"type":"backfill","table":"public.notes","from":"2024-02-01","to":"2024-01-01"}': (
        "to '2024-01-01' must be later than 2024-02-01T00:00:00+00:00"
    ),
    "{": "is not JSON",
    "[1,2]": "is not a JSON object",
    '{"version":2,"type":"ingest","table":"public.notes"}': "version 2 must be 1",
    '{"version":1,"type":"ingest","table":"public.notes","rows":5}': "'rows' 5 is no field",
    '{"version":1,"type":"ingest","table":7}': "table 7 must be text",
    '{"version":1,"type":"ingest","table":"public.nothing"}': 'relation "public.nothing" does not exist',
    '{"version":1,"type":"ingest","table":"notes"}': "table 'notes' is not a table name: write schema.table",
}


def test_poison_is_buried_with_field_value_and_remedy_and_blocks_nobody(office: Office) -> None:
    """All in one group, with a good message behind them; each can be dropped."""
    for body in POISON:
        office.send(body, "public.notes")
    office.ingest("public.notes")
    office.settle()
    assert office.outcomes("public.notes")[-1] == "snapshotted"
    letters = {letter["message"]: letter for letter in office.letters()}
    assert set(letters) == set(POISON)
    for body, words in POISON.items():
        assert words in letters[body]["failure"]["reason"]
        assert letters[body]["failure"]["hint"]
        assert letters[body]["failure"]["tries"] == 1
    assert office.tidelog("drop", letters["{"]["id"][:12]) == f"dropped {letters['{']['id'][:8]}: {{\n"
    assert len(office.letters()) == len(POISON) - 1
    assert len(taken(office.sandbox, office.sandbox.outputs["DeadLettersUrl"])) == len(POISON) - 1


def test_a_message_too_long_for_its_reason_is_moved_by_the_queue(office: Office) -> None:
    """A MiB of text leaves no room for attributes: it arrives whole, and the reason is found by its id."""
    body = "x" * 2**20
    office.send(body, "long")
    office.settle()
    [letter] = office.letters()
    assert letter["message"] == body
    assert "is not JSON" in letter["failure"]["reason"]
    assert "(1048576 characters)" in letter["failure"]["reason"]
    assert json.loads(office.tidelog("drop", letter["id"], "--json"))["dropped"]["id"] == letter["id"]


def test_a_killed_worker_is_told_of_too(office: Office) -> None:
    """Nobody lives to report it: the next try notes it, and the email comes before the last."""
    office.database.run("CREATE TABLE heavy AS SELECT 1 AS id", f"GRANT SELECT ON heavy TO {office.role}")
    sqs, url = office.sandbox.client("sqs"), office.sandbox.outputs["WorkQueueUrl"]

    def come_back(run: Invocation) -> None:
        if run.kind == "exit" and run.record:  # the visibility timeout, which is 930 s, has passed
            sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=run.record["receiptHandle"], VisibilityTimeout=0)

    def three_were_killed() -> bool:
        kill_waiting(office.sandbox, office.database, "public.heavy")
        return len(killed(office)) == 3

    office.sandbox.on_invocation(come_back)
    with office.database.session() as migration:
        migration.run("BEGIN; LOCK TABLE heavy IN ACCESS EXCLUSIVE MODE")
        office.ingest("public.heavy")
        wait_for(three_were_killed)
        office.settle()
    [letter] = office.letters()
    assert letter["failure"]["error"] == "WorkerKilled"
    assert "public.heavy" in office.sandbox.wait_for_email(lambda mail: "WorkerKilled" in mail.subject, SECONDS).subject
    office.tidelog("redrive")
    office.settle()
    assert office.outcomes("public.heavy")[-1] == "snapshotted"


def killed(office: Office) -> list[Invocation]:
    """Return the invocations that were killed."""
    return [run for run in office.runs if run.kind == "exit"]


def failures(office: Office, table: str) -> list[dict[str, Any]]:
    """Return what the failed runs of a table logged."""
    logged = [json.loads(line) for run in office.runs for line in run.log if line.startswith("{")]
    return [record for record in logged if record.get("message") == "run failed" and record.get("table") == table]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("show", "no-such-letter"), "none begins with 'no-such-letter'"),
        (("redrive", "--table", "orders"), "write schema.table"),
        (("list", "--stack", "elsewhere"), "there is none of that name here"),
    ],
)
def test_a_wrong_argument_is_told_what_would_be_right(office: Office, command: tuple[str, ...], words: str) -> None:
    """One line, no traceback."""
    status = 1 if "elsewhere" in command else 2
    told = " ".join(office.tidelog(*command, status=status).replace("│", " ").split())
    assert words in told
    assert "Traceback" not in told
