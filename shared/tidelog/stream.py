"""JSON lines on their way from the driver to who takes them."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from tidelog.columns import COPY_MARK

# Where a message ends, and the next begins. No text of PostgreSQL has a NUL, and no message in a buffer is so long that
# the first byte of its length is another.
_HEADER = re.compile(rb"\nd\0...", re.DOTALL)
_HEADER_BYTES = 5
_END = b"}\n"


class Sink(Protocol):
    """What takes JSON lines."""

    def write(self, data: bytes, /) -> object:
        """Take some whole lines, each with its newline at the end."""


class Rows:
    """Makes of the rows of a COPY what the sink is to get.

    Args:
        sink: gets whole lines.
        headings: what stands before each value of a row's JSON object, whose values come in `columns.COPY_FORMAT`; none
            for rows that are passed on as they come.
        tabs: whether there may be tabs in these values.
    """

    def __init__(self, sink: Sink, headings: Sequence[bytes] = (), *, tabs: bool = True) -> None:
        self._sink = sink
        self._headings = headings
        self._tabs = tabs
        self._between = COPY_MARK if headings else b"\n"
        self._row = [piece for heading in headings for piece in (heading, b"")]
        """A heading, room for its value, the next heading …"""
        self._pieces = [_END]
        """Of lines: so many of these rows, with the end of one before the next, and that of the last."""
        self.count = 0
        """How many were taken."""

    def write(self, row: bytes) -> None:
        """Take a row as COPY prints it. It may be a large one, which is not held on to."""
        self._take(row[:-1], 1)
        self._pieces = [_END]

    def write_messages(self, messages: memoryview) -> bool:
        """Take messages of the protocol, each a row: `d`, four bytes for the length, COPY's text with its newline.

        Returns:
            Whether they are that, all of them. If not, nothing was taken.
        """
        rows, ends = _HEADER.subn(self._between, messages[_HEADER_BYTES:-1])
        if b"\0" in rows:
            return False  # The server talks in between, and ends what it says with a NUL.
        self._take(rows, ends + 1)
        return True

    def _take(self, rows: bytes, count: int) -> None:
        self._sink.write(self._lines(rows, count) if self._headings else rows + b"\n")
        self.count += count

    def _lines(self, rows: bytes, count: int) -> bytes:
        """Return the JSON lines of rows, all of whose values have a mark in between."""
        if b"\\" in rows:
            rows = _unescaped(rows) if self._tabs else rows.replace(b"\\\\", b"\\")
        self._make_room(count)
        self._pieces[1::2] = rows.split(COPY_MARK)
        return b"".join(self._pieces)

    def _make_room(self, count: int) -> None:
        """Have pieces for so many rows. As a rule they are about as many as the last time."""
        width = len(self._row)
        more = count - len(self._pieces) // width
        if more > 0:
            self._pieces[-1:] = [*[_END + self._row[0], *self._row[1:]] * more, _END]
            self._pieces[0] = self._row[0]
        else:
            del self._pieces[count * width : -1]


def _unescaped(values: bytes) -> bytes:
    return values.replace(b"\\\\", b"\0").replace(b"\\t", b"\t").replace(b"\0", b"\\")


def pull(push: Callable[[Sink], object]) -> Generator[bytes]:
    """Yield what a function writes to its sink, which runs in a thread and is never more than a few blocks ahead.

    What the function raises is raised here. Closing the generator makes its next write fail, and waits for it to end.
    """
    blocks = _Blocks()
    thread = threading.Thread(target=blocks.fill, args=(push,), daemon=True)
    thread.start()
    try:
        yield from blocks
    finally:
        blocks.stop()
        thread.join()


class _Stopped(Exception):
    """Nobody takes lines any more."""


class _Blocks:
    """What one thread writes, for another to take."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(maxsize=8)
        self._stopped = threading.Event()

    def fill(self, push: Callable[[Sink], object]) -> None:
        end: BaseException | None = None
        try:
            push(self)
        except BaseException as error:  # noqa: BLE001 - it is raised where the lines are taken
            end = error
        with suppress(_Stopped):
            self._put(end)

    def write(self, data: bytes) -> None:
        self._put(data)

    def stop(self) -> None:
        self._stopped.set()

    def __iter__(self) -> Iterator[bytes]:
        while (block := self._queue.get()) is not None:
            if isinstance(block, BaseException):
                raise block
            yield block

    def _put(self, item: bytes | BaseException | None) -> None:
        while not self._stopped.is_set():
            with suppress(queue.Full):
                self._queue.put(item, timeout=0.1)
                return
        raise _Stopped
