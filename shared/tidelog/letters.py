"""Dead letters: messages that could not be worked off, and why.

A message that fails for good is sent to the dead letters with its `Failure` in attributes. One that was tried too often
is moved there by SQS itself, which adds nothing: of those the last failure lies in the lake, by the message's id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

import msgspec

from tidelog.errors import TidelogError

MAX_BYTES = 2**20
"""Of a message in SQS, its attributes with their names and types included."""

_SHOWN = 2000
_TYPE = "String"
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
_REFUSED = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class Received(msgspec.Struct, frozen=True):
    """A message as a worker gets it.

    Attributes:
        id: SQS's message id.
        receipt: the handle by which it is hidden or deleted.
        body: its text.
        queue: name of the queue it came from.
        group: its message group.
        tries: how often it was received, this time included.
        first_seen: when it was first received (ISO 8601).
    """

    id: str
    receipt: str
    body: str
    queue: str
    group: str
    tries: int
    first_seen: str


class Failure(msgspec.Struct, frozen=True):
    """Why the work on a message failed, the last time."""

    error: str
    """Name of the error's class."""
    reason: str
    """What was done, to what, and why it failed."""
    hint: str
    """What a person can do."""
    table: str
    """Empty where the message names none that can be read."""
    run: str
    """The function's request id: its log has more."""
    tries: int
    first_seen: str
    """When the message was first received (ISO 8601)."""
    failed_at: str
    """ISO 8601."""


class Origin(msgspec.Struct, frozen=True):
    """Where a dead letter came from, and goes back to."""

    queue: str
    group: str


def failure_of(error: Exception, message: Received, *, table: str, run: str, now: datetime) -> Failure:
    """Return why a message failed. Of an error that is not tidelog's own only the class is told: it may hold a row."""
    if isinstance(error, TidelogError):
        reason, hint = error.what, error.hint
    else:
        reason = f"work off the message: tidelog itself failed with {type(error).__name__}"
        hint = f"This is a fault of tidelog: report it with what the worker has logged for request {run}"
    return Failure(
        error=type(error).__name__,
        reason=_sendable(reason),
        hint=_sendable(hint),
        table=_sendable(table),
        run=run,
        tries=message.tries,
        first_seen=message.first_seen,
        failed_at=now.isoformat(timespec="seconds"),
    )


def retry_seconds(base: float, tries: int, chance: float) -> int:
    """Return how long a message is hidden after it has failed.

    Twice as long each time: base, 2 base, 4 base … with up to a fifth more or less, so that what failed together does
    not come back together. SQS hides for 12 hours at most, counted from the receipt.

    Args:
        base: seconds after the first try.
        tries: how often it was tried.
        chance: a random number from 0 to 1.
    """
    seconds = base * 2.0 ** min(tries - 1, 100) * (0.8 + 0.4 * chance)
    return max(1, min(round(seconds), 11 * 3600))


def to_attributes(failure: Failure, origin: Origin) -> dict[str, str]:
    """Return a failure as the attributes of a dead letter; an empty one is left out, as SQS wants it."""
    fields = msgspec.structs.asdict(failure) | msgspec.structs.asdict(origin)
    return {name: str(value) for name, value in fields.items() if value != ""}


def from_attributes(attributes: Mapping[str, str]) -> tuple[Failure, Origin] | None:
    """Read what `to_attributes` wrote; None where a message has no such attributes."""
    try:
        fields = {"table": "", "hint": "", **attributes}
        return msgspec.convert(fields, Failure, strict=False), msgspec.convert(fields, Origin, strict=False)
    except msgspec.ValidationError:
        return None


def size(body: str, attributes: Mapping[str, str]) -> int:
    """Return the bytes of a message as SQS counts them."""
    texts = [body, *attributes, *attributes.values(), *[_TYPE for _ in attributes]]
    return sum(len(text.encode()) for text in texts)


def _sendable(text: str) -> str:
    """Return a text that SQS takes: no control characters or lone surrogates, and not endless."""
    text = _REFUSED.sub("\N{REPLACEMENT CHARACTER}", text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
