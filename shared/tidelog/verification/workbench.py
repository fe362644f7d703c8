"""What a verification has done so far of one table, in a folder: one that was killed goes on from there."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tidelog.verification.audit import Finding
from tidelog.verification.spool import Spool
from tidelog.verification.sums import Sums
from tidelog.verification.verdict import Verified

_PROGRESS, _RESULT, _LAKE, _SERVER = "progress.json", "result.json", "lake.sums", "server-{}.sums"
VERSION = 1


class Progress(msgspec.Struct, frozen=True):
    """How far it is.

    It goes by the lines of the lake up to one event, written as one schema document has them.
    """

    version: int
    offset: int
    digest: str
    """Of that event."""
    document: str
    bits: int
    """Of a key's hash that choose its file."""
    segments: int = 0
    """How many are done, by position."""
    lines: int = 0
    sizes: tuple[int, ...] = ()
    """Of the files then."""
    findings: tuple[Finding, ...] = ()
    summed: bool = False
    """Whether the lake's sums are there."""
    steps: dict[int, int] = {}
    """Pages of a piece, by relation."""
    pieces: tuple[tuple[int, int, int, int], ...] = ()
    """Which the server's sums have."""


class Workbench:
    """The folder.

    Args:
        folder: where it is; it is made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # Keys of rows are in it at times.

    def progress(self) -> Progress | None:
        """Return how far it was, None where nothing is known."""
        try:
            found = msgspec.json.decode((self._folder / _PROGRESS).read_bytes(), type=Progress)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        return found if found.version == VERSION else None

    def note(self, progress: Progress) -> None:
        """Note how far it is."""
        self._put(_PROGRESS, msgspec.json.encode(progress))

    def result(self) -> Verified | None:
        """Return what came of it, None where it is not over."""
        try:
            return msgspec.json.decode((self._folder / _RESULT).read_bytes(), type=Verified)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def finish(self, result: Verified) -> None:
        """Keep what came of it, and nothing else."""
        self._put(_RESULT, msgspec.json.encode(result))
        for path in self._folder.iterdir():
            if path.name != _RESULT:
                path.unlink()

    def spool(self, name: str, bits: int) -> Spool:
        """Return files of records."""
        return Spool(self._folder, name, bits)

    def keep_lake_sums(self, sums: Sums) -> None:
        """Keep what the lake has."""
        self._put(_LAKE, sums.encode())

    def lake_sums(self) -> Sums:
        """Return what the lake has."""
        return Sums.decode((self._folder / _LAKE).read_bytes())

    def keep_server_sums(self, sums: Sums, pieces: int) -> None:
        """Keep what the server has, which tells of so many pieces."""
        self._put(_SERVER.format(pieces), sums.encode())
        (self._folder / _SERVER.format(pieces - 2)).unlink(missing_ok=True)

    def server_sums(self, pieces: int) -> Sums:
        """Return what the server has in so many pieces."""
        return Sums.decode((self._folder / _SERVER.format(pieces)).read_bytes()) if pieces else Sums()

    def _put(self, name: str, data: bytes) -> None:
        """Write a file as a whole: a kill leaves the one before."""
        path = self._folder / f"{name}.new"
        path.write_bytes(data)
        path.replace(self._folder / name)
