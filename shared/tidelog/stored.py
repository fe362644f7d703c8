"""Published segments, as a reader finds them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from tempfile import SpooledTemporaryFile
from typing import Any

from isal import igzip
from isal.igzip_lib import IsalError

from tidelog.errors import UnreadableData
from tidelog.failures import store_errors
from tidelog.lake import Position
from tidelog.rows import decode_line
from tidelog.stores import NoSuchObjectError, Store

_BLOCK = 2**20
_IN_MEMORY = 8 * 2**20

ReadRow = dict[str, Any]
"""Column headings to values: None, bool, int, Decimal, str, list or dict. What JSON can't say otherwise is text."""


@dataclass(frozen=True, slots=True, order=True)
class Stored:
    """A segment that is there. They sort by position: of two versions of a row, the later one is the same or newer."""

    position: Position
    key: str = field(compare=False)
    size: int = field(compare=False)
    """In bytes, as stored."""
    _store: Store = field(compare=False, repr=False)

    def lines(self) -> Iterator[bytes]:
        """Yield the JSON lines as they stand, without their newlines.

        Raises:
            UnreadableData: (a ValueError) the object is not there, or is broken.
            AccessDenied, StoreUnreachable: as they say.
        """
        hint = "Put it back from a copy of the lake"
        try:
            with SpooledTemporaryFile(_IN_MEMORY) as spool:
                # Kept here first: S3 would hang up on a caller who takes long over the rows.
                with store_errors("read", self.key), self._store.open(self.key) as stream:
                    shutil.copyfileobj(stream, spool, _BLOCK)
                spool.seek(0)
                with igzip.open(spool, "rb") as text:  # type: ignore[no-untyped-call] # isal has no types
                    # Only a newline ends a line: JSON text may hold what splitlines() of a str takes for one.
                    for line in BufferedReader(text, _BLOCK):
                        yield line.rstrip(b"\n")
        except NoSuchObjectError as error:
            raise UnreadableData("read", self.key, "there is no such object", hint) from error
        except (EOFError, igzip.BadGzipFile, IsalError) as error:  # type: ignore[misc] # it says of none what it is
            raise UnreadableData("read", self.key, f"it is broken: {error}", hint) from error

    def rows(self) -> Iterator[ReadRow]:
        """Yield the rows as they stand: with the columns that the table had then.

        Raises:
            UnreadableData: (a ValueError) the object is not there, or is not what tidelog wrote.
            AccessDenied, StoreUnreachable: as they say.
        """
        for line in self.lines():
            try:
                yield decode_line(line)
            except ValueError as error:
                raise UnreadableData("read", self.key, "a line of it is not JSON") from error
            except RecursionError as error:
                hint = "Take its lines() apart with another reader, or `tidelog latest`"
                raise UnreadableData("read", self.key, "a value is nested too deeply for Python", hint) from error
