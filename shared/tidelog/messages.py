"""Work messages: what stands on the queues, read strictly."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import msgspec

from tidelog.errors import InvalidMessage
from tidelog.tables import TableName

VERSION = 1
_KINDS = ("ingest",)
_GROUP = re.compile(r"""[A-Za-z0-9!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}""")
_EXAMPLE = '{"version":1,"type":"ingest","table":"public.orders"}'
_SHOWN = 80


class Ingest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ingest what is new in one table."""

    version: int
    type: str
    table: str
    tick: str | None = None
    """When the tick was due that sent it (ISO 8601); None where a person did."""

    @property
    def table_name(self) -> TableName:
        """The table."""
        return TableName.parse(self.table)

    @property
    def group(self) -> str:
        """The MessageGroupId: one run of a table at a time."""
        return self.table if _GROUP.fullmatch(self.table) else hashlib.sha256(self.table.encode()).hexdigest()

    @property
    def deduplication(self) -> str:
        """The MessageDeduplicationId: a tick that is delivered twice sends one message per table."""
        return hashlib.sha256(f"{self.table}\0{self.tick}".encode()).hexdigest()


def ingest(table: TableName, tick: str) -> Ingest:
    """Return the message that has one table ingested for one tick."""
    return Ingest(version=VERSION, type="ingest", table=str(table), tick=tick)


def encode(message: Ingest) -> str:
    """Return the message as it is sent."""
    return msgspec.json.encode(message).decode()


def decode(body: str) -> Ingest:
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
    if data.get("version") != VERSION or isinstance(data.get("version"), bool):
        raise _invalid("version", data.get("version"), f"must be {VERSION}")
    if data.get("type") not in _KINDS:
        raise _invalid("type", data.get("type"), f"must be one of {', '.join(_KINDS)}")
    if unknown := sorted(set(data) - set(Ingest.__struct_fields__)):
        raise _invalid(_shown(unknown[0]), data[unknown[0]], f"is no field of a message of type {data['type']}")
    for field in ("table", "tick"):
        if not isinstance(data.get(field), str) and not (field == "tick" and data.get(field) is None):
            raise _invalid(field, data.get(field), "must be text")
    try:
        TableName.parse(data["table"])
    except ValueError as error:
        raise _invalid("table", data["table"], "is not a table name: write schema.table") from error
    return Ingest(version=VERSION, type=data["type"], table=data["table"], tick=data.get("tick"))


def _invalid(field: str, value: Any, reason: str) -> InvalidMessage:
    shown = _shown(value) if isinstance(value, str) else _cut(json.dumps(value))
    return InvalidMessage("read", "a work message", f"{field} {shown} {reason}", f"Send for example {_EXAMPLE}")


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}… ({len(text)} characters)"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"
