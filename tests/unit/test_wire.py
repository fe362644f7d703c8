"""A wire: whatever the server says, in whatever pieces it arrives, each message comes once, whole, in order."""

from __future__ import annotations

import socket
import tracemalloc
from collections.abc import Sequence
from itertools import chain, cycle, islice, repeat
from typing import cast

from hypothesis import example, given
from hypothesis import strategies as st

from tidelog.stream import Rows
from tidelog.wire import Wire

Message = tuple[bytes, bytes]

READY = (b"Z", b"I")
END = [(b"c", b""), (b"C", b"COPY 3\0"), READY]
# Rows in any of whose lengths there is what looks like the end of a row, where they are that long.
LOOKALIKES = [0x0A - 4, 0x0A64 - 4, 0x0A6400 - 4, 0x0A0A64 - 4, 0x0A64 - 5]


class Talker:
    """A socket whose other end says something in pieces, with pauses (0), and then waits to be asked."""

    def __init__(self, said: bytes, pieces: Sequence[int]) -> None:
        self._said = memoryview(said)
        self._pieces = chain(islice(cycle(pieces), 2000), repeat(200_000))
        self._timeout: float | None = None
        self._least = 1
        self.sent = b""

    def setsockopt(self, _level: int, _option: int, value: int) -> None:
        """Let it be told how much it wants at least: it may get less all the same."""
        self._least = value

    def settimeout(self, seconds: float | None) -> None:
        """Have the reader wait no longer."""
        self._timeout = seconds

    def gettimeout(self) -> float | None:
        """Say how long it waits."""
        return self._timeout

    def recv_into(self, buffer: memoryview) -> int:
        """Say a piece."""
        assert len(buffer) > 0, "it asks for nothing, and would take that for the end"
        piece = next(self._pieces)
        if self._timeout is not None and not (piece and self._said):
            raise TimeoutError
        assert self._said, "it waits for what nobody will say"
        assert self._least == 1 or self._timeout is not None, "it waits until much is said"
        size = min(len(buffer), piece or 1, len(self._said))
        buffer[:size] = self._said[:size]
        self._said = self._said[size:]
        return size

    def recv(self, size: int) -> bytes:
        """Say a piece."""
        buffer = bytearray(size)
        return bytes(buffer[: self.recv_into(memoryview(buffer))])

    def sendall(self, data: bytes) -> None:
        """Listen."""
        self.sent += data


def framed(message: Message) -> bytes:
    """Return a message as it is sent."""
    letter, content = message
    return letter + (len(content) + 4).to_bytes(4) + content


def taken(wire: Wire) -> list[Message]:
    """Take all messages until the server is ready, as the driver does."""
    found: list[Message] = []

    def take(messages: memoryview) -> bool:
        rows = Sink()
        if not Rows(rows).write_messages(messages):
            return False
        found.extend((b"d", line) for line in rows.lines)
        return True

    while not found or found[-1][0] != b"Z":
        header = wire.read(5)
        found.append((header[:1], wire.read(int.from_bytes(header[1:]) - 4)))
        if found[-1][0] == b"d":
            wire.pass_on(take)
    return found


class Sink:
    """Takes lines."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Take lines."""
        self.lines += [line + b"\n" for line in data.split(b"\n")[:-1]]


class Null:
    """Takes lines, and keeps none."""

    def write(self, data: bytes) -> None:
        """Take lines."""


texts = st.binary(max_size=30).map(lambda text: text.replace(b"\0", b"d").replace(b"\n", b"d"))
small = texts.map(lambda text: (b"d", text + b"\n"))
large = st.sampled_from([*LOOKALIKES, 65_531, 65_532, 65_536, 70_000]).map(
    lambda length: (b"d", b"x" * (length - 1) + b"\n")
)
notices = st.sampled_from(
    [(b"N", b"SNOTICE\0Mat row\nd\0\0"), (b"S", b"TimeZone\0UTC\0"), (b"N", b"M\nd\0\0\0\x09so\n\0\0")]
)
messages = st.lists(st.one_of(*[small] * 9, large, notices, notices), max_size=60)


@given(
    st.lists(messages, min_size=1, max_size=3), st.lists(st.just(0) | st.integers(1, 200_000), min_size=1, max_size=9)
)
@example([[(b"d", b"\n")] * 40_000], [100_000, 1])
@example([[(b"d", b"x\n")] * 99], [7, 0, 0, 0])
@example([[(b"d", b"\n"), (b"N", b"M\nd\0\0\0\x09so\n\0\0")]], [0, 7])
@example([[(b"d", b"x" * (2**21 + more) + b"\n") for more in (-6, -5, 0, 9)] + [(b"d", b"\n")] * 9], [300_000])
@example([[(b"d", bytes([97 + n]) * 9000 + b"\n") for n in range(26)]], [8192, 0, 0])
@example([[(b"d", b"x" * (length - 1) + b"\n") for length in LOOKALIKES * 3]], [3])
def test_each_message_comes_once_whole_and_in_order(copies: list[list[Message]], pieces: list[int]) -> None:
    """Of several COPYs, one after the other; and nobody waits for what is not said unasked."""
    said = [[*copy, *END] for copy in copies]
    wire = Wire(cast("socket.socket", Talker(b"".join(framed(message) for copy in said for message in copy), pieces)))
    for copy in said:
        assert taken(wire) == copy


def test_a_row_above_16_mib_may_have_a_length_that_looks_like_the_end_of_a_row() -> None:
    """Its length is 01 0A 64 00: a newline, `d` and a NUL."""
    said = [(b"d", b"first\n"), (b"d", b"x" * (0x010A6400 - 5) + b"\n"), (b"d", b"last\n"), *END]
    for pieces in ([1000], [16, 9], [2**20]):
        assert taken(Wire(cast("socket.socket", Talker(b"".join(map(framed, said)), pieces)))) == said


def test_a_large_row_does_not_bring_many_small_ones_with_it() -> None:
    """What is made of rows takes many times as much memory, so they come by 64 KiB."""
    said = [*[(b"d", b"first\n")] * 3, (b"d", b"x" * 70_000 + b"\n"), *[(b"d", b"small\n")] * 40_000, *END]
    wire = Wire(cast("socket.socket", Talker(b"".join(map(framed, said)), [2**21])))
    batches: list[bytes] = []

    def take(messages: memoryview) -> bool:
        batches.append(bytes(messages))
        return True

    assert wire.read(11) == framed(said[0])
    wire.pass_on(take)
    assert b"".join(batches) == b"".join(map(framed, said[1:-3]))
    assert framed(said[3]) in batches
    assert max(len(batch) for batch in batches if batch != framed(said[3])) <= 2**16


values = st.binary(max_size=9).map(lambda text: bytes(byte for byte in text if byte not in b"\0\n\x02"))


@given(
    st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(st.lists(values, min_size=width, max_size=width)))),
    st.booleans(),
)
def test_headings_come_before_their_values_however_many_rows_come_at_a_time(
    batches: list[list[list[bytes]]],
    tabs: bool,
) -> None:
    """Fewer than the last time, or more, or a single one."""
    width = len(next(chain.from_iterable(batches), [b""]))
    headings = [b'%c"\\%d":' % (b",{"[not number], number) for number in range(width)]
    sink, wanted = Sink(), []
    rows = Rows(sink, headings, tabs=tabs)
    for batch in filter(None, batches):
        said = [(b"d", b"\x02".join(row).replace(b"\\", b"\\\\") + b"\n") for row in batch]
        if len(batch) == 1:
            rows.write(said[0][1])
        else:
            assert rows.write_messages(memoryview(b"".join(map(framed, said))))
        wanted += [b"".join(chain.from_iterable(zip(headings, row, strict=True))) + b"}\n" for row in batch]
    assert sink.lines == wanted
    assert rows.count == len(wanted)


def test_a_large_row_is_not_held_on_to() -> None:
    """A worker's memory is not to be that of the row before as well."""
    rows = Rows(Null(), [b'{"a":'])
    tracemalloc.start()
    try:
        rows.write(b"x" * 2**24 + b"\n")
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2**20 < 2**24 < peak


def test_what_is_written_is_sent_when_it_is_flushed() -> None:
    """All of it at once, and once."""
    talker = Talker(b"", [1])
    wire = Wire(cast("socket.socket", talker))
    wire.write(b"a")
    wire.write(b"bc")
    assert talker.sent == b""
    wire.flush()
    wire.flush()
    assert talker.sent == b"abc"


def test_a_server_that_goes_away_in_the_middle_says_less() -> None:
    """The driver takes that for the end of the connection."""
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"abc")
        there.close()
        wire = Wire(here)
        assert (wire.read(2), wire.read(5), wire.read(1), wire.read(2**20)) == (b"ab", b"c", b"", b"")
