"""Parameter Store: a summary of each table's state, never ahead of the ledger, and made again from it if it is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from random import uniform
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec
from botocore.exceptions import ClientError

from tidelog.errors import UnreadableData
from tidelog.failures import error_code, store_errors
from tidelog.state import Lack, State
from tidelog.tables import TableName

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

_BATCH = 10  # GetParameters takes no more
_AT_ONCE = 4
_PASSING = ("ThrottlingException", "TooManyUpdates")
"""Of which botocore tries the second not again, and the first not for long."""
_PAUSES = (0.1, 0.4, 1.6)


class Summary(msgspec.Struct, frozen=True):
    """What is kept of a table's state: well under the 4 KB of a standard parameter."""

    offset: int = 0
    """Of the newest event whose segment is published; 0 where nothing is."""
    sequential_id: int = 0
    timestamp: str | None = None
    timeline: int = 1
    horizon: int = 0
    checked_at: str | None = None
    """When the table was last read with success, or first awaited (ISO 8601): noted now and then, not by every run."""
    strategy: str = ""
    """How its last window was found, and why so."""
    lacks: Lack | None = None
    """Why the table may not be complete up to its last run; None where it is."""
    complete_at: str | None = None
    """Up to when it is complete, by the server's clock; None where that can't be said."""
    tally: str = ""
    """Of the table before a run that has left nothing unread; empty where none has, or a large read is under way."""

    @property
    def is_blank(self) -> bool:
        """Whether the table is awaited and nothing was ever ingested of it."""
        return self.checked_at is not None and self == Summary(checked_at=self.checked_at, tally=self.tally)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever ingested of the table because it has no rows: a run has looked."""
        return self.is_blank and bool(self.tally)

    def age(self, now: datetime) -> float:
        """Return the seconds since `checked_at`; 0 where that is not known."""
        return (now - datetime.fromisoformat(self.checked_at)).total_seconds() if self.checked_at else 0.0


def summarize(state: State, at: datetime) -> Summary:
    """Return the summary of a state, as of a successful run."""
    return Summary(
        state.offset,
        state.sequential_id,
        state.timestamp,
        state.timeline,
        state.horizon,
        at.isoformat(timespec="milliseconds"),
        state.strategy,
        state.lacks,
        state.complete_at,
    )


class Kept(msgspec.Struct, frozen=True):
    """What Parameter Store has of a table.

    Attributes:
        version: how often it was written.
        summary: None where it is none.
        fault: why it is none.
    """

    version: int
    summary: Summary | None
    fault: UnreadableData | None = None


class Parameters:
    """The summaries of every table, at `<prefix>/tables/<schema>/<table>`."""

    def __init__(self, ssm: SSMClient, prefix: str) -> None:
        self._ssm = ssm
        self._prefix = f"{prefix}/tables"

    def read(self, table: TableName) -> Summary | None:
        """Return a table's summary, None where it has none.

        Raises:
            UnreadableData: its parameter is not a summary.
        """
        kept = self.kept(table)
        return _summary(kept) if kept else None

    def kept(self, table: TableName) -> Kept | None:
        """Return what there is of a table, be it a summary or not; None where there is nothing."""
        with store_errors("read the state of", table):
            try:
                found = self._ssm.get_parameter(Name=self._name(table))["Parameter"]
            except ClientError as error:
                if error_code(error) != "ParameterNotFound":
                    raise
                return None
        return _kept(table, found["Version"], found["Value"])

    def read_all(self, *, lenient: bool = False) -> Iterator[tuple[TableName, Summary]]:
        """Yield every table that has a summary; a lenient reader leaves out those that are none.

        Raises:
            UnreadableData: a parameter is not a summary.
        """
        for table, kept in self.all_kept():
            if kept.summary or not lenient:
                yield table, _summary(kept)

    def all_kept(self) -> Iterator[tuple[TableName, Kept]]:
        """Yield of every table what there is, be it a summary or not."""
        with store_errors("read the state of", "all tables"):
            for page in self._ssm.get_paginator("get_parameters_by_path").paginate(Path=self._prefix, Recursive=True):
                for found in page["Parameters"]:
                    table = self._table(found["Name"])
                    yield table, _kept(table, found["Version"], found["Value"])

    def read_some(self, tables: Sequence[TableName]) -> dict[TableName, Summary]:
        """Return the summaries of some tables, of those that have one."""
        batches = [tables[start : start + _BATCH] for start in range(0, len(tables), _BATCH)]
        with store_errors("read the state of", f"{len(tables)} tables"), ThreadPoolExecutor(_AT_ONCE) as pool:
            return {table: kept for found in pool.map(self._batch, batches) for table, kept in found.items()}

    def _batch(self, tables: Sequence[TableName]) -> dict[TableName, Summary]:
        found = self._ssm.get_parameters(Names=[self._name(table) for table in tables])["Parameters"]
        named = [(self._table(each["Name"]), each) for each in found]
        kept = {table: _kept(table, each["Version"], each["Value"]).summary for table, each in named}
        return {table: summary for table, summary in kept.items() if summary}

    def write(self, table: TableName, summary: Summary) -> int:
        """Write a table's summary, whatever was there; return the version that it is.

        Parameter Store takes some writes a second of an account, and one at a time of a parameter: that passes.
        """
        name, value, pauses = self._name(table), msgspec.json.encode(summary).decode(), iter(_PAUSES)
        with store_errors("write the state of", table):
            while True:
                try:
                    return self._ssm.put_parameter(Name=name, Value=value, Type="String", Overwrite=True)["Version"]
                except ClientError as error:
                    if error_code(error) not in _PASSING or (seconds := next(pauses, None)) is None:
                        raise
                time.sleep(seconds * uniform(0.5, 1.5))  # noqa: S311 - no secret depends on it

    def forget(self, table: TableName) -> None:
        """Delete what there is of a table."""
        with store_errors("delete the state of", table):
            try:
                self._ssm.delete_parameter(Name=self._name(table))
            except ClientError as error:
                if error_code(error) != "ParameterNotFound":
                    raise

    def expect(self, table: TableName, at: datetime) -> None:
        """Note since when a table is awaited, unless it has a summary."""
        value = msgspec.json.encode(Summary(checked_at=at.isoformat(timespec="seconds"))).decode()
        with store_errors("write the state of", table):
            try:
                self._ssm.put_parameter(Name=self._name(table), Value=value, Type="String", Overwrite=False)
            except ClientError as error:
                if error_code(error) != "ParameterAlreadyExists":
                    raise

    def project(
        self,
        table: TableName,
        state: State,
        known: Summary | None,
        at: datetime,
        *,
        fresh: float = float("inf"),
        tally: str = "",
    ) -> datetime:
        """Write the summary of a state, only ever forward; return when it says that the table was read.

        Args:
            table: the table.
            state: the state after an event whose segment is published.
            known: the summary that was read before.
            at: the time.
            fresh: seconds for which a summary is good where the state is still the same.
            tally: up to which all is read; where none is given, what was known stays if the state has read it.
        """
        tally = tally or (known.tally if known and state.leaves else "")
        summary = msgspec.structs.replace(summarize(state, at), tally="" if state.plans else tally)
        stale = known and known.offset == state.offset and (known.tally != summary.tally or known.age(at) > fresh)
        if known is None or known.offset < state.offset or stale:
            self.write(table, summary)
            return at
        return datetime.fromisoformat(known.checked_at) if known.checked_at else at

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


def _summary(kept: Kept) -> Summary:
    if kept.fault:
        raise kept.fault
    return kept.summary or Summary()


def _kept(table: TableName, version: int, value: str) -> Kept:
    try:
        return Kept(version, _decode(table, value))
    except UnreadableData as fault:
        return Kept(version, None, fault)


def _decode(table: TableName, value: str) -> Summary:
    try:
        summary = msgspec.json.decode(value, type=Summary)
        summary.age(datetime.now(UTC))  # Its time must be one.
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        hint = "tidelog rebuild makes it again from the ledger; so does the table's next run"
        raise UnreadableData("read the state of", table, f"its parameter is not a summary: {error}", hint) from error
    return summary
