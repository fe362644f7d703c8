"""JSON lines on their way from the driver to who takes them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import Protocol

from tidelog.columns import COPY_MARKS


class Sink(Protocol):
    """What takes JSON lines."""

    def write(self, data: bytes, /) -> object:
        """Take some whole lines, each with its newline at the end."""


class Gathering:
    """Gathers the few rows that the driver hands over at a time, and takes the marks of the COPY format out."""

    _SIZE = 2**16  # the allocator gives larger blocks back to the system, and gets them anew, each time

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._rows: list[bytes] = []
        self._held = 0

    def write(self, rows: bytes) -> None:
        """Take some rows as COPY prints them."""
        self._rows.append(rows)
        self._held += len(rows)
        if self._held >= self._SIZE:
            self.flush()

    def flush(self) -> None:
        """Pass on what is held."""
        if self._rows:
            self._sink.write(b"".join(self._rows).translate(None, COPY_MARKS))
            self._rows.clear()
            self._held = 0


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
