"""Work messages: what stands on the queues, read strictly."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from tidelog import ranges
from tidelog.errors import InvalidMessage
from tidelog.tables import TableName

VERSION = 1
_GROUP = re.compile(r"""[A-Za-z0-9!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}""")
_INGEST = '{"version":1,"type":"ingest","table":"public.orders"}'
_BACKFILL = '{"version":1,"type":"backfill","table":"public.orders","from":"2024-01-01","to":"2024-02-01"}'
_LONE = re.compile("[\ud800-\udfff]")
_TYPES = {
    "version": int,
    "plan": int,
    "chunk": int,
    "configuration": int,
    "all": bool,
    "look": bool,
    "tick": (str, type(None)),
}
_SHOWN = 80
_LONGEST = "9999mo"
_M = TypeVar("_M", bound="_Message")


class _Message(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What all messages have."""

    version: int
    type: str
    table: str

    @property
    def table_name(self) -> TableName:
        """The table."""
        return TableName.parse(self.table)

    @property
    def group(self) -> str:
        """The MessageGroupId: messages of one group are worked off one after another."""
        return _group(self.table)

    @property
    def deduplication(self) -> str:
        """The MessageDeduplicationId: sent twice within five minutes, it is there once."""
        return hashlib.sha256(encode(self).encode()).hexdigest()


class Ingest(_Message, frozen=True):
    """Ingest what is new in one table."""

    tick: str | None = None
    """When the tick was due that sent it (ISO 8601); None where a person did."""
    configuration: int | None = None
    """The version of the configuration that it is about, 0 where there is none; None leaves it to the worker."""
    request: str = ""
    """Id of the request of a person who may wait for it: the run then notes its time, also where nothing is new."""
    tally: str = ""
    """What the server had counted of the table when it was sent: a run that leaves nothing unread notes it."""
    look: bool = False
    """Whether the server has counted nothing new: where that is so, nothing has to be noted."""
    calm: str = ""
    """When the last tick was at which the server had counted nothing new (ISO 8601); empty where that is not known."""


class Backfill(_Message, frozen=True):
    """Read rows of a table again: those of a range in time, or all."""

    since: str = msgspec.field(name="from", default="")
    """Begin of the range (UTC, ISO 8601), which belongs to it; empty where all rows are meant."""
    until: str = msgspec.field(name="to", default="")
    """Its end, which does not."""
    all: bool = False
    column: str = "both"
    """The timestamp column that the range is about; "both": each that says when a row was created or updated."""
    step: str = ""
    """Length of the pieces that it is read in, such as 1d, 1w, 1mo; empty leaves it to tidelog."""
    request: str = ""
    """Id of the request, by which its plan can be found; empty where a person sent the message."""

    @property
    def group(self) -> str:
        """The MessageGroupId: one planning of a table's backfills at a time."""
        return _group(f"{self.table}/backfill")


class Sweep(_Message, frozen=True):
    """Read what bounds in time have hidden in a table."""

    tick: str = ""
    """When the sweep was due (ISO 8601); empty where a person did ask for it."""
    request: str = ""
    """Id of the request; empty where nobody waits for it."""


class ReadChunk(_Message, frozen=True):
    """Read one chunk of a plan."""

    plan: int
    chunk: int

    @property
    def group(self) -> str:
        """The MessageGroupId: chunks are read side by side."""
        return _group(f"{self.table}/{self.plan}/{self.chunk}")


Message = Ingest | Backfill | Sweep | ReadChunk
_EXAMPLES: Mapping[type[_Message], str] = {
    Ingest: _INGEST,
    Backfill: _BACKFILL,
    Sweep: '{"version":1,"type":"sweep","table":"public.orders"}',
    ReadChunk: _BACKFILL,
}


def ingest(
    table: TableName,
    tick: str | None,
    configuration: int | None = None,
    *,
    request: str = "",
    tally: str = "",
    look: bool = False,
    calm: datetime | None = None,
) -> Ingest:
    """Return the message that has one table ingested, for a tick or as a person asks."""
    return Ingest(
        version=VERSION,
        type="ingest",
        table=str(table),
        tick=tick,
        configuration=configuration,
        request=request,
        tally=tally,
        look=look,
        calm=calm.isoformat(timespec="milliseconds") if calm else "",
    )


def sent_again(body: str) -> str:
    """Return a message as it is sent once its failure is mended: by the latest configuration."""
    try:
        message = decode(body)
    except InvalidMessage:
        return body
    if not isinstance(message, Ingest) or message.configuration is None:
        return body
    return encode(msgspec.structs.replace(message, configuration=None, tally="", look=False))


def sweep(table: TableName, *, tick: str = "", request: str = "") -> Sweep:
    """Return the message that has one table swept."""
    return Sweep(version=VERSION, type="sweep", table=str(table), tick=tick, request=request)


def chunk(table: TableName, plan: int, number: int) -> ReadChunk:
    """Return the message that has one chunk read."""
    return ReadChunk(version=VERSION, type="backfill", table=str(table), plan=plan, chunk=number)


def encode(message: Message | _Message) -> str:
    """Return the message as it is sent."""
    return msgspec.json.encode(message).decode()


def decode(body: str) -> Message:
    """Read a message.

    Raises:
        InvalidMessage: naming the field, the value and the remedy.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _invalid("the body", body, "is not JSON") from error
    if not isinstance(data, dict):
        raise _invalid("the body", body, "is not a JSON object")
    return read(data)


def read(data: Mapping[str, Any]) -> Message:
    """Read a message that was decoded from JSON.

    Raises:
        InvalidMessage: naming the field, the value and the remedy.
    """
    if data.get("version") != VERSION or isinstance(data.get("version"), bool):
        raise _invalid("version", data.get("version"), f"must be {VERSION}")
    kind = data.get("type")
    if kind == "ingest":
        message: Message = _calm(_fields(data, Ingest))
    elif kind == "backfill":
        message = _fields(data, ReadChunk) if "plan" in data else _range(_fields(data, Backfill))
    elif kind == "sweep":
        message = _fields(data, Sweep)
    else:
        raise _invalid("type", kind, "must be one of ingest, backfill, sweep")
    try:
        _ = message.table_name
    except ValueError as error:
        example = _EXAMPLES[type(message)]
        raise _invalid("table", message.table, "is not a table name: write schema.table", example) from error
    return message


def _fields(data: Mapping[str, Any], kind: type[_M]) -> _M:
    """Return a message of some kind: no unknown field, and each of its type."""
    example = _EXAMPLES[kind]
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    if unknown := sorted(set(data) - set(fields)):
        raise _invalid(
            _shown(unknown[0]), data[unknown[0]], f"is no field of a message of type {data['type']}", example
        )
    for name, field in fields.items():
        if name not in data and not field.required:
            continue
        value = data.get(name)
        wanted: Any = _TYPES.get(name, str)
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            words = {int: "must be a whole number", bool: "must be true or false"}.get(wanted, "must be text")
            raise _invalid(name, value, words, example)
        if wanted is int and value < (least := 0 if name == "configuration" else 1):
            raise _invalid(name, value, f"must be {least} or greater", example)
        if isinstance(value, str) and name != "table" and _LONE.search(value):
            raise _invalid(name, value, "holds half a character", example)
    return msgspec.convert(dict(data), kind)


def _calm(message: Ingest) -> Ingest:
    """Return a message whose `calm` is a moment."""
    try:
        is_moment = not message.calm or datetime.fromisoformat(message.calm).tzinfo is not None
    except ValueError:
        is_moment = False
    if not is_moment:
        raise _invalid("calm", message.calm, "must be a moment with a zone, in ISO 8601: leave it out", _INGEST)
    return message


def _range(message: Backfill) -> Backfill:
    """Return a backfill with its range in UTC."""
    given = {"from": message.since, "to": message.until, "step": message.step}
    if message.all:
        given["column"] = "" if message.column == "both" else message.column
        for name, value in given.items():
            if value:
                raise _invalid(name, value, "has no place beside all: leave one of the two out", _BACKFILL)
        return message
    since, until = (_moment(name, given[name]) for name in ("from", "to"))
    try:
        ranges.check_order(since, until)
    except ValueError as error:
        raise _invalid("to", message.until, str(error), _BACKFILL) from error
    try:
        ranges.steps(since, until, message.step or _LONGEST)
    except ValueError as error:
        raise _invalid("step", message.step, str(error), _BACKFILL) from error
    return msgspec.structs.replace(message, since=since, until=until)


def _moment(name: str, value: str) -> str:
    if not value:
        raise _invalid(name, value, "is missing: a backfill needs from and to, or all", _BACKFILL)
    try:
        return ranges.moment(value)
    except ValueError as error:
        raise _invalid(name, value, str(error), _BACKFILL) from error


def _group(text: str) -> str:
    return text if _GROUP.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()


def _invalid(field: str, value: Any, reason: str, example: str = _INGEST) -> InvalidMessage:
    try:
        shown = _shown(value) if isinstance(value, str) else _cut(json.dumps(value))
    except RecursionError:
        shown = "that is nested so deeply"
    return InvalidMessage("read", "a work message", f"{field} {shown} {reason}", f"Send for example {example}")


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}… ({len(text)} characters)"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"
