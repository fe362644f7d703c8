"""Segments as they lie in the lake: read once more, and held against what their events say of them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import closing
from typing import BinaryIO

from isal import isal_zlib

from tidelog.failures import store_errors
from tidelog.stores import NoSuchObjectError, Store
from tidelog.stream import Sink, pull
from tidelog.verification.audit import Kept

_GZIP = 31
_CHUNK = 2**17
_BLOCK = 2**18


class Playback:
    """One segment.

    Args:
        store: the lake.
        key: the segment's.
        kept: what its event says.
    """

    def __init__(self, store: Store, key: str, kept: Kept) -> None:
        self._store = store
        self._key = key
        self._kept = kept
        self._bytes = 0
        self._digest = hashlib.sha256()
        self._broken = ""
        self._text_bytes = 0
        self.rows = 0
        """Lines that were read so far."""

    def lines(self, patience: float) -> Iterator[list[bytes]]:
        """Yield the lines, many at a time, as far as they can be read.

        Args:
            patience: for so many seconds an object is waited for that is not there.
        """
        stream = self._open(patience)
        if stream is None:
            self._broken = "it is not there"
            return
        rest = b""
        with closing(stream), closing(pull(lambda sink: self._inflate(stream, sink))) as blocks:
            for block in blocks:
                self._text_bytes += len(block)
                *lines, rest = (rest + block if rest else block).split(b"\n")
                self.rows += len(lines)
                yield lines
        if rest:
            self._broken = self._broken or "its last line has no end"

    def _open(self, patience: float) -> BinaryIO | None:
        give_up = time.monotonic() + patience
        while True:
            try:
                return self._store.open(self._key)
            except NoSuchObjectError:
                if time.monotonic() >= give_up:
                    return None
                time.sleep(0.1)

    def _inflate(self, stream: BinaryIO, sink: Sink) -> None:
        inflate = isal_zlib.decompressobj(wbits=_GZIP)
        whole = False
        while data := self._read(stream):
            self._bytes += len(data)
            self._digest.update(data)
            while data and not self._broken:
                try:
                    text = inflate.decompress(data, _BLOCK)
                except isal_zlib.error as error:  # type: ignore[misc] # untyped
                    self._broken = f"it can't be decompressed: {error}"
                    break
                if text:
                    sink.write(text)
                data, whole = inflate.unused_data or inflate.unconsumed_tail, inflate.eof
                if inflate.eof:
                    inflate = isal_zlib.decompressobj(wbits=_GZIP)
        if not whole and not self._broken:
            self._broken = "its compressed data break off"

    def _read(self, stream: BinaryIO) -> bytes:
        with store_errors("read", self._key):
            return stream.read(_CHUNK)

    @property
    def is_there(self) -> bool:
        """Whether anything of it was read."""
        return self._bytes > 0

    @property
    def problem(self) -> str:
        """What is wrong with it, once all lines were read; empty where nothing is."""
        kept, wrong = self._kept, [self._broken] if self._broken else []
        if not self._bytes:
            return self._broken or "it is empty"
        if self._digest.hexdigest() != kept.digest:
            wrong.append("its bytes are not those that were written")
        for what, found, said in (
            ("bytes", self._bytes, kept.bytes),
            ("lines", self.rows, kept.rows),
            ("bytes of text", self._text_bytes, kept.text_bytes),
        ):
            if found != said:
                wrong.append(f"it has {found:,} {what} where its event says {said:,}")
        return "; ".join(wrong)
