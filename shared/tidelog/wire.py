"""A socket as the driver wants it, a file for messages; and for the rows of a COPY, by the buffer."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

_BUFFER = 2**21
_ENOUGH = 2**20
"""Bytes for which it is worth to be woken: while they gather, the server does not wait."""
_BATCH = 2**16
"""Bytes of rows that are passed on at a time: the allocator gives larger blocks back to the system after each use."""
_PATIENCE_SECONDS = 0.002
_AT_ONCE_SECONDS = 0.001
_HEADER = 5
_ROW = ord("d")
_NEXT_ROW = b"\nd\0"


class Wire:
    """Reads from a socket as much as there is, and hands it out.

    A message of PostgreSQL's protocol is a letter, four bytes for its length without the letter, and its content. In a
    COPY each row is a message `d` whose text ends with a newline and holds no NUL (PostgreSQL documentation, "Message
    Formats"). So where a newline, `d` and a NUL stand, a row of less than 16 MiB begins behind the newline.

    Args:
        sock: the socket. `close` closes it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = memoryview(bytearray(_BUFFER))
        self._bytes: bytearray = self._buffer.obj  # type: ignore[assignment] # that very one
        self._begin = self._end = 0
        self._odd = 0
        """Up to where messages lie that were not taken for rows."""
        self._said = bytearray()

    def write(self, data: bytes) -> None:
        """Keep what is to be sent."""
        self._said += data

    def flush(self) -> None:
        """Send it."""
        said, self._said = self._said, bytearray()
        self._sock.sendall(said)

    def read(self, size: int) -> bytes:
        """Read so many bytes, or fewer where the server says no more."""
        taken = self._taken(size)
        if len(taken) == size:
            return taken
        parts, missing = [taken], size - len(taken)
        while missing >= _BUFFER:
            if not (part := self._sock.recv(min(missing, _ENOUGH))):
                return b"".join(parts)
            parts.append(part)
            missing -= len(part)
        while missing and self._fill():
            parts.append(self._taken(missing))
            missing -= len(parts[-1])
        return b"".join(parts)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def pass_on(self, take: Callable[[memoryview], bool]) -> None:
        """Pass on rows, many at a time, until there is a message that the driver has to read.

        The last message that was read has to be a row: then the server says more without being asked.

        Args:
            take: gets messages of which the first is a row, and says whether all of them are. What a server says in
                between may hold what looks like a row; if they are not taken, the driver reads them one by one.
        """
        while self._begin >= self._odd:
            end = self._gathered()
            if end == self._begin:
                return
            while self._begin < end:
                some = self._batch_end(end)
                if self._bytes[self._begin] != _ROW or not take(self._buffer[self._begin : some]):
                    self._odd = end
                    return
                self._begin = some

    def _batch_end(self, end: int) -> int:
        """Return where a batch of rows ends, or a single row that is larger."""
        if end - self._begin <= _BATCH:
            return end
        some = self._last_row(self._begin + _BATCH)
        if some == self._begin:
            some += 1 + int.from_bytes(self._buffer[self._begin + 1 : self._begin + _HEADER])
        return min(some, end)

    def _gathered(self) -> int:
        """Wait until there are many rows, or no more for now; return where the last whole one ends.

        The server is not to wake this process for every few rows. What comes after them is not waited for as long as
        there are some: it may be that the server has said all.
        """
        usual = self._sock.gettimeout()
        try:
            for least, seconds in ((_ENOUGH, _PATIENCE_SECONDS), (1, _AT_ONCE_SECONDS)):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
                self._sock.settimeout(seconds)
                with suppress(TimeoutError):
                    while self._is_short_of(_ENOUGH) and self._fill():
                        pass
        finally:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            self._sock.settimeout(usual)
        while self._is_short_of(1) and self._fill():
            pass
        return self._rows_end()[0]

    def _is_short_of(self, size: int) -> bool:
        """Say whether there are fewer bytes of whole rows, more seem to come, and there is room for them."""
        end, more = self._rows_end()
        return more and end - self._begin < size and self._end - self._begin < _BUFFER

    def _rows_end(self) -> tuple[int, bool]:
        """Return where the last whole row seems to end, and whether the server seems to be about to send more."""
        at = self._last_row(self._end)
        while self._end - at >= _HEADER:
            if self._bytes[at] != _ROW:
                return at, False
            following = at + 1 + int.from_bytes(self._buffer[at + 1 : at + _HEADER])
            if following > self._end:
                break
            at = following
        return at, True

    def _last_row(self, before: int) -> int:
        """Return where the last row before some place in the buffer seems to begin."""
        at = before
        while (at := self._bytes.rfind(_NEXT_ROW, self._begin, at) + 1) > self._begin:
            if not (self._is_header(at - 2) or self._is_header(at - 3)):
                return at
            at += 1  # It is in the middle of a length.
        return self._begin

    def _is_header(self, at: int) -> bool:
        """Say whether a row begins somewhere: no row holds a newline but its last byte."""
        first = at == self._begin
        return at >= self._begin and self._bytes[at] == _ROW and (first or self._bytes[at - 1] == _NEXT_ROW[0])

    def _taken(self, size: int) -> bytes:
        begin, self._begin = self._begin, min(self._begin + size, self._end)
        return bytes(self._buffer[begin : self._begin])

    def _fill(self) -> bool:
        """Read what there is; return whether there is anybody who says something."""
        if self._begin == self._end:
            self._begin = self._end = self._odd = 0
        elif self._begin and self._end > _ENOUGH:
            held = self._end - self._begin
            self._buffer[:held] = self._buffer[self._begin : self._end]
            self._begin, self._end, self._odd = 0, held, max(0, self._odd - self._begin)
        read = self._sock.recv_into(self._buffer[self._end :])
        self._end += read
        return read > 0
