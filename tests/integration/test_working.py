"""What becomes of a message: worked off, hidden for another try, among the dead letters, given up."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
from msgspec.structs import replace
from msgspec.structs import replace as changed

from tests.faults import KilledError, Process, Step, refusal
from tests.integration.conftest import Clock, Post
from tests.integration.test_deadletters import FAILURE
from tests.tide import Lake, Tide
from tidelog.deadletters import DeadLetters, Failures, Letter
from tidelog.errors import AccessDenied, Conflict, DatabaseBusy, TidelogError
from tidelog.letters import MAX_BYTES, Failure, Received
from tidelog.marks import Marks
from tidelog.messages import Message
from tidelog.notices import Notices
from tidelog.queues import WorkQueue
from tidelog.runs import Run
from tidelog.working import Failed, Jobs, Retries, Worker

BODY = '{"version":1,"type":"ingest","table":"public.t"}'
TRIES = 3
NOTE = Step("put_object", "failures/")


RUN = Run("public.t", "unchanged")
BUSY = DatabaseBusy("read", "public.t", "it is locked", "Wait")


class Ending(Jobs):
    """Work that ends in some way, once it has done something."""

    def __init__(self, end: Run | BaseException, first: Callable[[], object] = lambda: None) -> None:
        self._end = end
        self._first = first

    def do(self, work: Message, message: Received, *, seconds: float) -> Run:  # noqa: ARG002 - the real one's
        """End."""
        self._first()
        if isinstance(self._end, BaseException):
            raise self._end
        return self._end


class Desk:
    """A worker between its queues and a lake, and what comes of its messages."""

    def __init__(self, lake: Lake, post: Post, clock: Clock) -> None:
        self.lake = lake
        self.post = post
        self.clock = clock
        self.failures = Failures(lake.s3, lake.bucket)

    def work_off(
        self,
        message: Received,
        *,
        jobs: Jobs,
        process: Process | None = None,
    ) -> Run | Failed:
        """Work a message off in a process of its own."""
        process = process or Process()
        post, lake = self.post, self.lake
        sqs, s3, ssm = (process.client(client) for client in (post.sqs, lake.s3, lake.ssm))
        failures = Failures(s3, lake.bucket)
        worker = Worker(
            jobs=jobs,
            queues={post.work.rpartition("/")[2]: WorkQueue(sqs, post.work)},
            dead_letters=DeadLetters(sqs, post.dead, failures),
            failures=failures,
            notices=Notices(process.client(post.sns), post.topic, "prod", Marks(ssm, lake.prefix), self.clock),
            retries=Retries(60, TRIES),
            now=self.clock,
            chance=lambda: 0.5,
        )
        return worker.work_off(message, seconds=60, run="request 7")

    def fail(self, message: Received, error: BaseException, process: Process | None = None) -> Failed:
        """Work off a message of which ingesting fails, if it comes to that."""
        failed = self.work_off(message, jobs=Ending(error), process=process)
        assert isinstance(failed, Failed)
        return failed

    def received(self, body: str = BODY, group: str = "public.t", *, tries: int = 1) -> Received:
        """Receive a message that has failed so often less one, the last time as is noted."""
        message = self.post.received(body, group, tries=tries)
        if tries > 1:
            self.failures.write(message.id, changed(FAILURE, tries=tries - 1))
        return message

    def letters(self) -> list[Letter]:
        """Look at the dead letters."""
        with DeadLetters(self.post.sqs, self.post.dead, self.failures).opened() as letters:
            return list(letters)

    def noted(self, message: Received) -> Failure | None:
        """Return the failure that was noted of a message."""
        return self.failures.read(message.id)

    def subjects(self) -> list[str]:
        """Take the notices; return their subjects."""
        return [subject for subject, _ in self.post.notices()]


@pytest.fixture
def desk(lake: Lake, post: Post, clock: Clock) -> Desk:
    """A worker with nothing to do."""
    return Desk(lake, post, clock)


def test_a_message_that_is_worked_off_leaves_nothing_behind(desk: Desk, tide: Tide) -> None:
    """No note, no letter, no notice."""
    tide.run("CREATE TABLE t AS SELECT 1 AS id")
    run = desk.work_off(desk.received(), jobs=tide.jobs())
    assert isinstance(run, Run)
    assert (run.table, run.outcome, run.rows) == ("public.t", "snapshotted", 1)
    assert (desk.letters(), desk.subjects(), desk.lake.keys("failures/")) == ([], [], [])


def test_what_can_not_pass_by_itself_is_buried_at_once_and_told_of(desk: Desk, tide: Tide) -> None:
    """On the first try, or on the last; the notice names the letter."""
    tide.run("CREATE VIEW v AS SELECT 1 AS id")
    kinds = {"public.nothing": "UnknownTable", "public.v": "NotIngestible", "": "InvalidMessage"}
    for (table, error), tries in product(kinds.items(), (1, TRIES)):
        body = f'{{"version":1,"type":"ingest","table":"{table}"}}'
        group = f"{error}-{tries}"
        failed = desk.work_off(desk.received(body, group, tries=tries), jobs=tide.jobs())
        assert isinstance(failed, Failed)
        assert (failed.then, failed.seconds) == ("buried", 0)
        assert (failed.failure.error, failed.failure.table, failed.failure.tries) == (error, table, tries)
        [letter] = [letter for letter in desk.letters() if letter.origin.group == group]
        assert (letter.body, letter.failure, letter.table) == (body, failed.failure, table)
        notices = desk.post.notices()
        assert len(notices) == (tries == 1)  # else it is within the hour
        for subject, text in notices:
            assert subject == f"[prod] {table or 'a message that names no table'} failed with {error}"
            assert f"show {letter.id} --stack prod" in text


@pytest.mark.parametrize("code", ["ServiceUnavailable", "AccessDenied", "InvalidMessageContents"])
def test_a_message_that_can_not_be_buried_is_tried_again(desk: Desk, code: str) -> None:
    """Then SQS moves it in the end, and the lake knows the reason."""
    message, process = desk.post.received("{"), Process()
    process.at("before", Step("send_message"), refusal(code))
    failed = desk.fail(message, BUSY, process)
    assert (failed.then, failed.seconds, failed.failure.error) == ("retried", 60, "InvalidMessage")
    assert desk.noted(message) == failed.failure
    assert desk.letters() == []
    last = replace(message, tries=TRIES)
    process.at("before", Step("send_message"), refusal(code))
    assert desk.fail(last, BUSY, process).then == "given up"
    assert desk.subjects() == ["[prod] a message that names no table failed with InvalidMessage"]


def test_a_message_too_long_for_its_reason_is_given_to_sqs_at_once(desk: Desk) -> None:
    """There is nothing to wait for: it is received until SQS moves it."""
    long = replace(desk.post.received("{"), body="x" * MAX_BYTES)
    failed = [desk.fail(replace(long, tries=tries), BUSY) for tries in range(1, TRIES + 1)]
    assert [each.then for each in failed] == ["retried", "retried", "given up"]
    assert [each.seconds for each in failed] == [0, 0, 0]
    assert desk.noted(long) == failed[-1].failure
    assert len(desk.subjects()) == 1


def test_what_may_pass_is_tried_again_later_each_time_and_given_up_in_the_end(desk: Desk) -> None:
    """The last failure is noted each time; one notice, when nothing more is tried."""
    message = desk.received()
    for tries, then, seconds in ((1, "retried", 60), (2, "retried", 120), (3, "given up", 0)):
        failed = desk.fail(replace(message, tries=tries), BUSY)
        assert (failed.then, failed.seconds, failed.error) == (then, seconds, BUSY)
        assert desk.noted(message) == failed.failure
        assert failed.failure.tries == tries
        assert desk.subjects() == (["[prod] public.t failed with DatabaseBusy"] if then == "given up" else [])
    assert desk.letters() == []  # SQS moves it


def test_what_is_tried_again_is_hidden_and_what_is_given_up_is_not(desk: Desk) -> None:
    """The worker need not live until the visibility timeout ends."""
    message = desk.received()
    desk.fail(message, BUSY)
    assert desk.post.receive(desk.post.work) == []
    desk.fail(replace(message, tries=TRIES), BUSY)
    [again] = desk.post.receive(desk.post.work)
    assert again["MessageId"] == message.id


@pytest.mark.parametrize("error", [ValueError("row 4711"), KeyError("row 4711"), RecursionError(), MemoryError()])
def test_an_error_of_the_code_is_tried_again_and_never_quoted(desk: Desk, error: Exception) -> None:
    """It may hold a row; it may also pass with the next version."""
    failed = desk.fail(desk.received(), error)
    assert (failed.then, failed.failure.error, failed.error) == ("retried", type(error).__name__, error)
    assert "row 4711" not in repr(failed.failure)
    desk.fail(desk.received(BODY, "another-group", tries=TRIES), error)
    [(subject, text)] = desk.post.notices()
    assert subject == f"[prod] public.t failed with {type(error).__name__}"
    assert "row 4711" not in text
    assert "request 7" in text


def test_the_end_of_the_process_is_no_failure_of_the_message(desk: Desk) -> None:
    """Nothing may be caught that is not an error."""
    with pytest.raises(KeyboardInterrupt):
        desk.work_off(desk.received(), jobs=Ending(KeyboardInterrupt()))


@pytest.mark.parametrize("step", [NOTE, Step("change_message_visibility"), Step("publish"), Step("get_parameter")])
@pytest.mark.parametrize("code", ["InternalError", "AccessDenied"])
@pytest.mark.parametrize("tries", [1, TRIES])
def test_what_fails_while_a_failure_is_dealt_with_is_made_up_for(desk: Desk, step: Step, code: str, tries: int) -> None:
    """By the log, the alarm on the dead letters, the visibility timeout: the message itself is not lost sight of."""
    message, process = desk.received(tries=tries), Process()
    process.at("before", step, refusal(code))
    failed = desk.fail(message, BUSY, process)
    assert failed.then == ("given up" if tries == TRIES else "retried")
    assert (desk.noted(message) == failed.failure) == (step is not NOTE)
    assert len(desk.subjects()) == (tries == TRIES and step.operation != "publish")


def test_a_receipt_that_is_no_longer_good_is_no_failure(desk: Desk) -> None:
    """The message was taken from a worker that was too slow; nor is a queue that is none of the worker's."""
    message = desk.received()
    assert desk.fail(replace(message, receipt="old"), BUSY).then == "retried"
    assert desk.fail(replace(message, queue="another.fifo"), BUSY).then == "retried"


def test_a_failure_of_the_kind_that_passes_leaves_no_dead_letter(desk: Desk, tide: Tide) -> None:
    """A lock that is gone by the second try: the rows are there, and nobody was told anything."""
    tide.run("CREATE TABLE t AS SELECT 1 AS id")
    message = desk.received()
    with tide.database.session() as migration:
        migration.run("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        impatient = tide.jobs(source=tide.database.source(lock_seconds=0.05))
        failed = desk.work_off(message, jobs=impatient)
    assert isinstance(failed, Failed)
    assert (failed.failure.error, failed.then) == ("DatabaseBusy", "retried")
    assert "55P03" in failed.failure.reason
    run = desk.work_off(replace(message, tries=2), jobs=tide.jobs())
    assert isinstance(run, Run)
    assert run.rows == 1
    assert (desk.letters(), desk.subjects()) == ([], [])


@pytest.mark.parametrize("tries", [2, TRIES])
def test_a_worker_that_was_killed_is_noted_by_the_next_one(desk: Desk, tries: int) -> None:
    """Nobody lived to say why the last try failed. Before the last one it is told: perhaps nobody lives after it."""
    message = desk.post.received(BODY, tries=tries)
    told: list[tuple[str, str]] = []
    assert desk.work_off(message, jobs=Ending(RUN, lambda: told.extend(desk.post.notices()))) == RUN
    noted = desk.noted(message)
    assert noted
    assert (noted.error, noted.tries, noted.table) == ("WorkerKilled", tries - 1, "public.t")
    assert "WorkerMemory" in noted.hint
    assert [subject for subject, _ in told] == ["[prod] public.t failed with WorkerKilled"] * (tries == TRIES)
    assert all(f"show {message.id}" in text for _, text in told)
    assert desk.subjects() == []


def test_a_death_is_told_from_a_failure(desk: Desk) -> None:
    """Of three tries the first failed, the second died: the third says so, and then why it has failed itself."""
    message = desk.received()
    seen: list[Failure | None] = []
    failing = Ending(BUSY, lambda: seen.append(desk.noted(message)))
    desk.fail(message, BUSY)
    with pytest.raises(KilledError):
        desk.work_off(replace(message, tries=2), jobs=Ending(KilledError()))
    desk.work_off(replace(message, tries=3), jobs=failing)
    assert [(each.error, each.tries) for each in seen if each] == [("WorkerKilled", 2)]
    assert desk.subjects() == [f"[prod] public.t failed with {error}" for error in ("WorkerKilled", "DatabaseBusy")]
    noted = desk.noted(message)
    assert noted
    assert (noted.error, noted.tries) == ("DatabaseBusy", 3)


@pytest.mark.parametrize("step", [Step("get_object", "failures/"), NOTE])
def test_a_look_back_that_fails_does_not_keep_a_message_from_being_worked_off(desk: Desk, step: Step) -> None:
    """It is only about the words."""
    process = Process()
    process.at("before", step, refusal("SlowDown"))
    message = desk.post.received(BODY, tries=2)
    assert desk.work_off(message, jobs=Ending(RUN), process=process) == RUN
    assert desk.noted(message) is None


@pytest.mark.parametrize("error", [AccessDenied, Conflict], ids=lambda kind: kind.__name__)
def test_what_was_worked_off_may_be_deleted_and_nothing_else(desk: Desk, error: Callable[..., TidelogError]) -> None:
    """Of what failed, only what lies among the dead letters; a message is in one place or the other."""
    message = desk.received()
    failed = desk.fail(message, error("read", "public.t", "no"))
    assert (failed.then == "buried") == (len(desk.letters()) == 1) == (error is AccessDenied)
    assert (desk.noted(message) is None) == (failed.then == "buried")
