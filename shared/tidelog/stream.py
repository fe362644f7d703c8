"""JSON lines on their way from the driver to who takes them."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import Protocol

from tidelog.columns import COPY_MARK

# Where a message ends, and the next begins. No text of PostgreSQL has a NUL, and no message in a buffer is so long that
# the first byte of its length is another.
_HEADER = re.compile(rb"\nd\0...", re.DOTALL)
_HEADER_BYTES = 5


class Sink(Protocol):
    """What takes JSON lines."""

    def write(self, data: bytes, /) -> object:
        """Take some whole lines, each with its newline at the end."""


class Rows:
    """Makes of the rows of a COPY what the sink is to get.

    Args:
        sink: gets whole lines.
        frame: what stands before and behind each row's JSON text, which comes in `columns.COPY_FORMAT`; None for rows
            that are passed on as they come.
        tabs: whether there may be tabs in that text.
    """

    def __init__(self, sink: Sink, frame: tuple[bytes, bytes] | None = None, *, tabs: bool = True) -> None:
        self._sink = sink
        self._tabs = tabs
        self._json = frame is not None
        # Backslashes are doubled like those of the rows: all are made single at once.
        self._begin, self._end = (_doubled(text) for text in frame or (b"", b""))
        self._end += b"\n"
        self._between = _doubled(self._end + self._begin)  # as a template of the regular expression
        self.count = 0
        """How many were taken."""

    def write(self, row: bytes) -> None:
        """Take a row as COPY prints it."""
        self._take(row[:-1], 1)

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
        lines = b"".join((self._begin, rows, self._end))
        if self._json:
            lines = lines.translate(None, COPY_MARK)
            if b"\\" in lines:
                lines = _unescaped(lines) if self._tabs else lines.replace(b"\\\\", b"\\")
        self._sink.write(lines)
        self.count += count


def _unescaped(lines: bytes) -> bytes:
    return lines.replace(b"\\\\", b"\0").replace(b"\\t", b"\t").replace(b"\0", b"\\")


def _doubled(text: bytes) -> bytes:
    return text.replace(b"\\", b"\\\\")


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
