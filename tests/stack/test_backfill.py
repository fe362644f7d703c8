"""Backfills as an operator starts them: by command, by message, through the scheduler; and looks after them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.chaos.plan import ROOT
from tests.conftest import CreateDatabase
from tests.stack.command import TIDELOG, environment
from tests.stack.office import PARAMETERS, Office
from tests.tide import wait_for
from tidelog_cli.main import app
from tidelog_sandbox.sandbox import Sandbox

SECONDS = 60
README = (ROOT / "README.md").read_text(encoding="utf-8")
ORDERS = "public.sales_order"


@pytest.fixture(scope="module")
def office(create_database: CreateDatabase) -> Iterator[Office]:
    """Three tables that were ingested; a chunk is as small as can be."""
    with create_database() as database:
        database.run(
            "CREATE TABLE sales_order (id int PRIMARY KEY, note text, created_at timestamp, last_updated timestamptz)",
            "CREATE INDEX ON sales_order (created_at)",
            "CREATE INDEX ON sales_order (last_updated)",
            "INSERT INTO sales_order SELECT n, repeat('x', 400), timestamptz '2024-01-01' + n * interval '1 hour', "
            "timestamptz '2024-01-01' + n * interval '1 hour' FROM generate_series(0, 2399) n",
            "CREATE TABLE payment AS SELECT id, created_at FROM sales_order",
            "CREATE TABLE plain AS SELECT 1 AS id",
            "ANALYZE",
        )
        server = database.server.credentials(database.name)
        content = {name: getattr(server, name) for name in server.__struct_fields__} | {"engine": "postgres"}
        parameters = {**PARAMETERS, "ChunkMegabytes": "1"}
        with Sandbox(ROOT / "template.yaml", parameters=parameters, database=content) as sandbox:
            sandbox.start_mappings()
            office = Office(sandbox, database)
            office.tick()
            database.run("CREATE TABLE fresh (id int)")
            yield office


JANUARY = list(range(31 * 24))


def test_the_message_of_the_readme_brings_the_rows_of_its_range(office: Office) -> None:
    """As it stands there; each row once, and the live table's state is as before."""
    [_, body] = re.findall(r"--message-body '(.+)'", README)
    before = office.tide.state(ORDERS)
    office.send(body)
    office.settle()
    assert office.emitted(before.offset, ORDERS) == JANUARY
    after = office.tide.state(ORDERS)
    assert (after.sequential_id, after.timestamp, after.horizon) == (
        before.sequential_id,
        before.timestamp,
        before.horizon,
    )
    office.tide.check(ORDERS)


def test_the_scheduler_answers_a_request_as_the_readme_shows_it(office: Office) -> None:
    """A dry run says what it takes and sends nothing; without it, it is done."""
    [payload] = re.findall(r"echo '(.+)'", README)
    client, function = office.sandbox.client("lambda"), office.sandbox.outputs["SchedulerFunction"]
    before = [office.offset(ORDERS), office.offset("public.payment")]
    answer = json.load(client.invoke(FunctionName=function, Payload=payload)["Payload"])
    assert [each["table"] for each in answer["backfills"]] == [ORDERS, "public.payment"]
    assert all(each["rows"] > 700 and each["chunks"] >= 1 and not each["request"] for each in answer["backfills"])
    office.settle()
    assert [office.offset(ORDERS), office.offset("public.payment")] == before
    sent = json.dumps({**json.loads(payload), "dry_run": False})
    answer = json.load(client.invoke(FunctionName=function, Payload=sent)["Payload"])
    assert all(each["request"] for each in answer["backfills"])
    office.settle()
    assert office.emitted(before[0], ORDERS) == office.emitted(before[1], "public.payment") == JANUARY


def test_the_command_waits_for_what_it_has_sent(office: Office) -> None:
    """In pieces of a week; what it prints for scripts says the same."""
    begin = office.offset(ORDERS)
    range_of = (ORDERS, "--from", "2024-01-01", "--to", "2024-02-01", "--chunk", "1w")
    foretold = json.loads(office.tidelog("backfill", *range_of, "--dry-run", "--json"))
    assert foretold["backfills"][0]["chunks"] == 5
    assert office.offset(ORDERS) == begin
    done = json.loads(office.tidelog("backfill", *range_of, "--wait", "--json"))
    assert done["done"] == [
        {"table": ORDERS, "plan": begin + 1, "rows": 744, "bytes": done["done"][0]["bytes"], "reason": None}
    ]
    assert office.emitted(begin, ORDERS) == JANUARY
    text = office.tidelog("backfill", ORDERS, "--from", "2024-01-01T00:00+02:00", "--to", "2024-01-01T02:00", "--wait")
    assert "public.sales_order: 2 rows" in text
    assert "[2023-12-31T22:00:00+00:00, 2024-01-01T02:00:00+00:00)" in text
    text = office.tidelog("backfill", "--all", "public.plain", "--wait")
    assert "public.plain: 1 row," in text


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ((ORDERS,), 2, "name --from and --to, or --all"),
        ((ORDERS, "--from", "2024-01-01"), 2, "name --from and --to, or --all"),
        ((ORDERS, "--from", "2024-13-01", "--to", "2024-02-01"), 2, "--from: '2024-13-01' is not a date"),
        ((ORDERS, "--from", "yesterday", "--to", "2024-02-01"), 2, "--from: 'yesterday' is not a date"),
        ((ORDERS, "--from", "2024-02-01", "--to", "2024-01-01"), 2, "--to: '2024-01-01' must be later than"),
        ((ORDERS, "--from", "2024-01-01", "--to", "2024-01-01"), 2, "must be later than"),
        ((ORDERS, "--from", "2024-01-01", "--to", "2024-02-01", "--chunk", "fortnight"), 2, "is not a length such as"),
        ((ORDERS, "--from", "1024-01-01", "--to", "2024-02-01", "--chunk", "1h"), 2, "more than 10,000 pieces"),
        ((ORDERS, "--all", "--from", "2024-01-01"), 2, "--all leaves no place for a range"),
        (("sales_order", "--all"), 2, "'sales_order' is not a table name: write schema.table"),
        (("public.salesorder", "--all"), 1, 'relation "public.salesorder" does not exist'),
        ((ORDERS, "public.nothing", "--all"), 1, 'relation "public.nothing" does not exist'),
        (("public.fresh", "--all"), 1, "nothing was ingested of it yet. Wait for its first tick"),
        (
            ("public.plain", "--from", "2024-01-01", "--to", "2024-02-01"),
            1,
            "none of its columns says by its name when",
        ),
        (
            (ORDERS, "--from", "2024-01-01", "--to", "2024-02-01", "--column", "note"),
            1,
            "column 'note' is of type text; of type date, timestamp or timestamptz: created_at, last_updated",
        ),
        (
            (ORDERS, "--from", "2024-01-01", "--to", "2024-02-01", "--column", "updated"),
            1,
            "it has no column 'updated'",
        ),
        (("cancel", f"{ORDERS}/999999"), 2, "is not under way: see tidelog backfill list"),
        (("cancel", "everything"), 2, "'everything' is not under way"),
        (("resume", f"{ORDERS}/x"), 2, "is not under way"),
    ],
)
def test_every_mistake_is_answered_before_anything_is_sent(
    office: Office, command: tuple[str, ...], status: int, words: str
) -> None:
    """In words that name what to mend."""
    before = office.offset(ORDERS)
    variables = {**office.sandbox.environment, "TIDELOG_STACK": "tidelog", "COLUMNS": "200"}
    answered = CliRunner().invoke(app, ["backfill", *command], env=variables)
    assert answered.exit_code == status
    assert words in (str(answered.exception) if status == 1 else plain(answered.output))
    assert office.waiting() == 0
    assert office.offset(ORDERS) == before


def plain(text: str) -> str:
    """Return a message without its frame."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())


def test_a_plan_is_listed_cancelled_and_taken_up_again(office: Office) -> None:
    """Its chunks wait while nobody works; those of a cancelled one are dropped, those that were lost are sent again."""
    office.sandbox.stop_mappings()
    begin = office.offset(ORDERS)
    for _ in range(2):
        office.tidelog("backfill", ORDERS, "--from", "2024-01-01", "--to", "2024-04-01", "--chunk", "1w")
        record = take(office)
        office.sandbox.invoke(office.sandbox.outputs["WorkerFunction"], {"Records": [record]})
    first, second = (each["plan"] for each in json.loads(office.tidelog("backfill", "list", "--json")))
    assert first == f"{ORDERS}/{begin + 1}"
    listed = office.tidelog("backfill", "list")
    assert re.search(rf"{first} +2024-01-01T00:00:00\+00:00 to 2024-04-01T00:00:00\+00:00 +0 of 13", listed)
    dropped = json.loads(office.tidelog("backfill", "cancel", first, "--json"))
    assert dropped == {"plan": first, "cancelled": True, "dropped": 13}
    office.sandbox.client("sqs").purge_queue(QueueUrl=office.sandbox.outputs["BackfillQueueUrl"])
    assert f"{second}: sent 13 chunks" in office.tidelog("backfill", "resume", second)
    assert json.loads(office.tidelog("backfill", "resume", "--json")) == [{"plan": second, "sent": 13}]
    office.sandbox.start_mappings()
    office.settle()
    assert office.emitted(begin, ORDERS) == list(range(91 * 24))
    assert "No large read is under way." in office.tidelog("backfill", "list")


def take(office: Office) -> dict[str, Any]:
    """Take the next message off the backfill queue, as an event source mapping has it."""
    sqs, url = office.sandbox.client("sqs"), office.sandbox.outputs["BackfillQueueUrl"]
    [message] = sqs.receive_message(QueueUrl=url, MessageSystemAttributeNames=["All"])["Messages"]
    while json.loads(message["Body"]).get("plan"):  # a chunk of another plan: later
        [message] = sqs.receive_message(QueueUrl=url, MessageSystemAttributeNames=["All"])["Messages"]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "eventSourceARN": "arn:aws:sqs:eu-west-2:123456789012:tidelog-backfill.fifo",
    }


def test_a_backfill_that_fails_ends_the_wait(office: Office) -> None:
    """With the reason, and where to look; the letter brings it to its end."""
    office.tide.run("ALTER TABLE payment RENAME created_at TO moved_at")
    office.sandbox.stop_mappings()
    office.tide.run("ALTER TABLE payment RENAME moved_at TO created_at")
    command = [TIDELOG, "backfill", "public.payment", "--from", "2024-01-01", "--to", "2024-02-01", "--wait"]
    variables = environment(**office.sandbox.environment, TIDELOG_STACK="tidelog")
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        wait_for(lambda: office.waiting() == 1)
        office.tide.run("ALTER TABLE payment RENAME created_at TO moved_at")
        office.sandbox.start_mappings()
        _, said = waiting.communicate(timeout=SECONDS)
    assert waiting.returncode == 1
    assert "none of its columns says by its name when a row was created or updated" in said
    assert "tidelog dead-letters show " in said
