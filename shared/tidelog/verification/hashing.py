"""Rows and their keys as hashes of 64 bits, alike on the server and here: what two large sets of lines are compared by.

A hash is the first eight bytes of the SHA-256 of the text in UTF-8, as a signed number. Of ten million keys two share
one by chance in one lake of four hundred thousand; SHA-256, since MD5 is not there on servers that follow FIPS 140.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import msgspec

from tidelog.rows import raw_values

GROUPS = 2**16
"""Keys are compared in so many groups, by the first bits of their hashes."""


def hash_of(text: bytes) -> bytes:
    """Return the hash of a text as eight bytes."""
    return sha256(text).digest()[:8]


def group_of(key: int) -> int:
    """Return the group of a key by its hash."""
    return (key >> 48) & (GROUPS - 1)


def hash_sql(text: str) -> str:
    """Return the hash of a text as SQL."""
    return f"('x' || left(encode(sha256(convert_to({text}, 'UTF8')), 'hex'), 16))::bit(64)::bigint"


def group_sql(key: str) -> str:
    """Return the group of a key's hash as SQL."""
    return f"(({key} >> 48) & {GROUPS - 1})::int"


def key_reader(names: tuple[str, ...]) -> Callable[[bytes], bytes]:
    """Return what finds the text of a key in a line: its values as they stand there, with commas between them.

    What it returns raises msgspec.DecodeError where the line has no such key.
    """
    fields = [f"k{number}" for number in range(len(names))]

    def any_key(line: bytes) -> bytes:
        values = raw_values(line)
        if missing := [name for name in names if name not in values]:
            raise msgspec.ValidationError(f"it has no {missing[0]}")
        return b",".join(bytes(values[name]) for name in names)

    try:
        kind = msgspec.defstruct(
            "Key", [(field, msgspec.Raw) for field in fields], rename=dict(zip(fields, names, strict=True))
        )
    except ValueError:  # It knows no fields with quotes in their names.
        return any_key
    decode = msgspec.json.Decoder(kind).decode

    def key(line: bytes) -> bytes:
        try:
            found = decode(line)
        except (msgspec.DecodeError, RecursionError):
            return any_key(line)
        return b",".join([bytes(getattr(found, field)) for field in fields])

    return key
