"""Notices: what an administrator is told by email, in words, at most once an hour for the same thing.

An alarm that is in ALARM stays silent on the next failure, and says neither what failed nor what to do. A notice does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tidelog.errors import TidelogError
from tidelog.events import SchemaChanged, TimelineStarted
from tidelog.failures import store_errors
from tidelog.letters import Failure
from tidelog.marks import Mark, Marks
from tidelog.tables import TableName

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient

_AGAIN = timedelta(hours=1)
_SENDING = timedelta(minutes=2)  # longer than a call to SNS takes, its retries included
_BEGUN = "begun "
_SUBJECT = 100  # characters: https://docs.aws.amazon.com/sns/latest/api/API_Publish.html


class Notices:
    """Sends notices through a topic.

    Args:
        sns: the client.
        topic: ARN of the topic.
        stack: which stack speaks.
        marks: when something was told last.
        now: the clock, with a zone.
    """

    def __init__(self, sns: SNSClient, topic: str, stack: str, marks: Marks, now: Callable[[], datetime]) -> None:
        self._sns = sns
        self._topic = topic
        self._stack = stack
        self._marks = marks
        self._now = now
        self._told: dict[str, datetime] = {}

    def send(self, about: str, subject: str, text: str) -> bool:
        """Send a notice unless one about the same was sent within the hour, by whatever process.

        Where Parameter Store can't say whether it was, it is sent: rather twice than never.

        Raises:
            StoreUnreachable, AccessDenied: SNS does not take it.
        """
        now = self._now()
        if not self._is_due(about, now):
            return False
        try:
            with store_errors("send", "a notice"):
                self._sns.publish(TopicArn=self._topic, Subject=_subject(f"[{self._stack}] {subject}"), Message=text)
        except TidelogError:
            self._note(about, "not sent")
            raise
        self._told[about] = now
        self._note(about, now.isoformat())
        return True

    def of_dead_letter(self, letter: str, failure: Failure) -> bool:
        """Tell of a message that lies in the dead letters, or is about to.

        Args:
            letter: its id there.
            failure: why.

        Raises:
            StoreUnreachable, AccessDenied: SNS does not take it.
        """
        table = failure.table or "a message that names no table"
        text = dead_letter_text(self._stack, letter, failure)
        return self.send(f"dead letter {failure.table} {failure.error}", f"{table} failed with {failure.error}", text)

    def of_outdated(self, table: TableName, changed: SchemaChanged | TimelineStarted) -> bool:
        """Tell of a table of which lines written before are outdated, and that is not read again.

        Raises:
            StoreUnreachable, AccessDenied: SNS does not take it.
        """
        if isinstance(changed, TimelineStarted):
            text = lost_text(self._stack, table, changed)
            return self.send(f"lost {table} {changed.timeline}", f"lines of {table} may be of lost transactions", text)
        text = outdated_text(self._stack, table, changed)
        return self.send(f"outdated {table} {changed.schema}", f"lines of {table} are outdated", text)

    def _note(self, about: str, value: str) -> None:
        with suppress(TidelogError):  # It is told again then: rather twice than never.
            self._marks.write(_mark(about), value, Mark("", 0))

    def _is_due(self, about: str, now: datetime) -> bool:
        if about in self._told and now - self._told[about] < _AGAIN:
            return False
        name = _mark(about)
        try:
            last = self._marks.read(name)
            if last and _is_recent(last.value, now):
                return False
            return self._marks.write(name, f"{_BEGUN}{now.isoformat()}", last)
        except TidelogError:
            return True


def _mark(about: str) -> str:
    return f"notices/{hashlib.sha256(about.encode()).hexdigest()[:32]}"


def dead_letter_text(stack: str, letter: str, failure: Failure) -> str:
    """Return what a person needs to know of a dead letter: what failed, why, what to do."""
    tried = "once" if failure.tries == 1 else f"{failure.tries} times"
    chosen = f" --table {_quoted(failure.table)}" if failure.table else ""
    return f"""\
A message could not be worked off and lies in the dead letters of the tidelog stack {stack}. No row is lost: what it \
stands for is read when it is sent back.

Table:    {failure.table or "none that can be read from the message"}
Error:    {failure.error}: {failure.reason}
To do:    {failure.hint or "See the worker's log"}
Tries:    {tried}, first received {failure.first_seen}, failed last {failure.failed_at}
Request:  {failure.run} (in the log of the worker)

To look at it:
    tidelog dead-letters show {letter} --stack {stack}
To send it back, once the cause is mended:
    tidelog dead-letters redrive{chosen} --stack {stack}
To see all:
    tidelog dead-letters list --stack {stack}

The same error of the same table is told at most once an hour."""


def outdated_text(stack: str, table: TableName, changed: SchemaChanged) -> str:
    """Return what a person needs to know of lines that an altered table has outdated: why, and what to do."""
    return f"""\
The table {table} was altered so that its rows read otherwise without having new versions: the lines of them that are \
in the lake are outdated. It is too large to be read again at once. New and updated rows come as before.

Because:   {changed.outdated}
Altered:   {changed.difference}
Schema:    {changed.schema}

To have all rows read again:
    {changed.remedy} --stack {stack}

There is no hurry, and no need if the change has rewritten the table, as a default such as nextval() does: its rows come
by themselves then. This is told once for the change."""


def lost_text(stack: str, table: TableName, started: TimelineStarted) -> str:
    """Return what a person needs to know of lines whose transactions a failover may have lost: why, and what to do."""
    return f"""\
The table {table} is read from another server than before, which may lack the last transactions of the old one. What \
these have changed may be in the lake, newer than the rows that the table has. It is too large to be read whole at \
once. All that was written since comes, some of it twice.

Because:   {started.reason}
Lines:     {started.outdated}

To see whether any row differs:
    tidelog verify {_quoted(str(table))} --stack {stack}
To have all rows read again:
    {started.remedy} --stack {stack}

If the failover has lost nothing, as one that was planned, there is nothing to do. This is told once for each."""


def _quoted(text: str) -> str:
    """Return a text as one word of a shell."""
    plain = text.replace(".", "").replace("_", "")
    return text if plain.isascii() and plain.isalnum() else "'" + text.replace("'", "'\\''") + "'"


def _subject(text: str) -> str:
    """Return a text as a subject: one line of ASCII, not too long."""
    line = " ".join(text.encode("ascii", "replace").decode().split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= _SUBJECT else f"{line[: _SUBJECT - 3]}..."


def _is_recent(mark: str, now: datetime) -> bool:
    """Say whether a mark is of a notice that was sent within the hour, or is being sent; who sent it may have died."""
    begun = mark.startswith(_BEGUN)
    try:
        moment = datetime.fromisoformat(mark.removeprefix(_BEGUN))
    except ValueError:
        return False
    return bool(moment.tzinfo) and moment <= now < moment + (_SENDING if begun else _AGAIN)
