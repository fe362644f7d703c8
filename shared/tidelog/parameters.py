"""Parameter Store: a summary of each table's state, never ahead of the ledger, and made again from it if it is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec
from botocore.exceptions import ClientError

from tidelog.errors import UnreadableData
from tidelog.events import State
from tidelog.failures import error_code, store_errors
from tidelog.tables import TableName

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient


class Summary(msgspec.Struct, frozen=True):
    """What is kept of a table's state: well under the 4 KB of a standard parameter."""

    offset: int = 0
    """Of the newest event whose segment is published; 0 where nothing is."""
    sequential_id: int = 0
    timestamp: str | None = None
    timeline: int = 1
    horizon: int = 0


def summarize(state: State) -> Summary:
    """Return the summary of a state."""
    return Summary(state.offset, state.sequential_id, state.timestamp, state.timeline, state.horizon)


class Parameters:
    """The summaries of every table, at `<prefix>/tables/<schema>/<table>`."""

    def __init__(self, ssm: SSMClient, prefix: str) -> None:
        self._ssm = ssm
        self._prefix = f"{prefix}/tables"

    def read(self, table: TableName) -> Summary | None:
        """Return a table's summary, None where it has none."""
        with store_errors("read the state of", table):
            try:
                value = self._ssm.get_parameter(Name=self._name(table))["Parameter"]["Value"]
            except ClientError as error:
                if error_code(error) != "ParameterNotFound":
                    raise
                return None
        return _decode(table, value)

    def read_all(self) -> Iterator[tuple[TableName, Summary]]:
        """Yield every table that has a summary."""
        with store_errors("read the state of", "all tables"):
            for page in self._ssm.get_paginator("get_parameters_by_path").paginate(Path=self._prefix, Recursive=True):
                for parameter in page["Parameters"]:
                    table = self._table(parameter["Name"])
                    yield table, _decode(table, parameter["Value"])

    def write(self, table: TableName, summary: Summary) -> None:
        """Write a table's summary, whatever was there."""
        with store_errors("write the state of", table):
            self._ssm.put_parameter(
                Name=self._name(table), Value=msgspec.json.encode(summary).decode(), Type="String", Overwrite=True
            )

    def project(self, table: TableName, state: State, known: Summary | None) -> None:
        """Write the summary of a state, only ever forward.

        Args:
            table: the table.
            state: the state after an event whose segment is published.
            known: the summary that was read before.
        """
        if known is None or known.offset < state.offset:
            self.write(table, summarize(state))

    def _name(self, table: TableName) -> str:
        return f"{self._prefix}/{_escape(table.schema)}/{_escape(table.name)}"

    def _table(self, name: str) -> TableName:
        schema, table = name.removeprefix(f"{self._prefix}/").split("/")
        return TableName(_unescape(schema), _unescape(table))


def _escape(part: str) -> str:
    """Write a name as part of a parameter's: other bytes than it may have become a dot and two hexadecimal digits."""
    return "".join(
        c if (c.isascii() and c.isalnum()) or c in "_-" else "".join(f".{b:02x}" for b in c.encode()) for c in part
    )


def _unescape(part: str) -> str:
    return unquote(part.replace(".", "%"))


def _decode(table: TableName, value: str) -> Summary:
    try:
        return msgspec.json.decode(value, type=Summary)
    except msgspec.DecodeError as error:
        hint = "Delete the parameter: it is made again from the ledger"
        raise UnreadableData("read the state of", table, f"its parameter is not a summary: {error}", hint) from error
