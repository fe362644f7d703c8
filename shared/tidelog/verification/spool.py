"""Hashes of many rows in files, by the first bits of their keys: each is small enough to be looked at as a whole."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path

_RECORD = struct.Struct(">q12s")
"""The hash of the key, and what is said of it: the hash of the line, and a number."""
SAID = struct.Struct(">qI")
_FLUSH = 2**24
_ROWS = 100_000
"""A file is to have so many, as far as keys are spread evenly: a dictionary of them takes about 20 MB."""
_MOST_BITS = 12


def bits_for(rows: int) -> int:
    """Return by how many bits of their keys so many rows are divided into files."""
    return min(_MOST_BITS, (rows // _ROWS).bit_length())


class Spool:
    """Files of records, in the order in which they came.

    Args:
        folder: where they are.
        name: what their names begin with.
        bits: of a key's hash that choose its file.
    """

    def __init__(self, folder: Path, name: str, bits: int) -> None:
        self._folder = folder
        self._name = name
        self._bits = bits
        self._held = 0
        self._buffers = [bytearray() for _ in range(2**bits)]
        self.sizes = [0] * 2**bits
        """Bytes of each file, with what is held back."""

    def __len__(self) -> int:
        return len(self._buffers)

    def reset(self, sizes: Iterable[int] = ()) -> None:
        """Go back to what there was when the files had these sizes."""
        self.flush()
        self.sizes = [*sizes] or [0] * len(self)
        for number, size in enumerate(self.sizes):
            path = self._path(number)
            if path.exists():
                with path.open("r+b") as file:
                    file.truncate(size)
            elif size:
                path.touch()

    def add_lines(self, lines: Iterable[bytes], key_of: Callable[[bytes], bytes] | None, number: int) -> None:
        """Add lines.

        Args:
            lines: without their newlines.
            key_of: finds the text of a line's key; None takes the whole line.
            number: noted with each.

        Raises:
            msgspec.DecodeError: a line has no key; those before it are added.
        """
        buffers, shift, noted = self._buffers, 16 - self._bits, number.to_bytes(4, "big")
        for line in lines:
            value = sha256(line).digest()[:8]
            key = sha256(key_of(line)).digest()[:8] if key_of else value
            buffers[(key[0] << 8 | key[1]) >> shift] += key + value + noted
        self._overflow()

    def add(self, records: Iterable[tuple[int, int, int]]) -> None:
        """Add hashes of keys, hashes of lines, and numbers."""
        buffers, shift, pack, say = self._buffers, 64 - self._bits, _RECORD.pack, SAID.pack
        mask = len(buffers) - 1
        for key, value, number in records:
            buffers[(key >> shift) & mask] += pack(key, say(value, number))
        self._overflow()

    def _overflow(self) -> None:
        if sum(map(len, self._buffers)) >= _FLUSH:
            self.flush()

    def flush(self) -> None:
        """Write what is held back."""
        for number, buffer in enumerate(self._buffers):
            if buffer:
                with self._path(number).open("ab") as file:
                    file.write(buffer)
                self.sizes[number] += len(buffer)
                buffer.clear()

    def records(self, number: int) -> Iterator[tuple[int, bytes]]:
        """Yield the records of a file in their order: hash of the key, and what is said of it (`SAID`)."""
        path = self._path(number)
        data = path.read_bytes() if path.exists() else b""
        yield from _RECORD.iter_unpack(data)

    def file_of(self, group: int) -> int:
        """Return the file that a group of keys lies in."""
        return group >> (16 - self._bits)

    def drop(self) -> None:
        """Delete the files."""
        for number in range(len(self)):
            self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._name}-{number:04}"


def latest(records: Iterable[tuple[int, bytes]]) -> dict[int, bytes]:
    """Return of each key what was said of it last."""
    return dict(records)


def counted(records: Iterable[tuple[int, bytes]]) -> Counter[int]:
    """Return how often there is each line."""
    return Counter(key for key, _ in records)
