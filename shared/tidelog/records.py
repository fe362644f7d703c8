"""Events as they are stored: each carries a digest of itself and the one of the event before, so an edit shows."""

from __future__ import annotations

import hashlib

import msgspec

from tidelog.events import VERSION, Event

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)

_OPEN, _CLOSE = b'"digest": "', b'"\n}\n'
_DIGITS = 64


def sealed(event: Event) -> Event:
    """Return an event with its digest: the SHA-256 of what is stored of it, but for the digest itself."""
    digest = hashlib.sha256(_blank(event)).hexdigest()
    return msgspec.structs.replace(event, digest=digest, state=msgspec.structs.replace(event.state, digest=digest))


def encode(event: Event) -> bytes:
    """Return a sealed event as it is stored."""
    return _blank(event)[: -len(_CLOSE)] + event.digest.encode() + _CLOSE


def decode(data: bytes) -> Event:
    """Read an event.

    Raises:
        msgspec.DecodeError: the data is not an event of a version this code knows, or somebody has edited it.
    """
    start, end = len(data) - len(_CLOSE) - _DIGITS, len(data) - len(_CLOSE)
    blank = data[:start] + data[end:]
    if not blank.endswith(_OPEN + _CLOSE) or hashlib.sha256(blank).hexdigest().encode() != data[start:end]:
        raise msgspec.ValidationError("its digest is not that of its content: somebody has edited it")
    event = _decoder.decode(data)
    if event.version != VERSION:
        raise msgspec.ValidationError(f"version {event.version} is not {VERSION}")
    return msgspec.structs.replace(event, state=msgspec.structs.replace(event.state, digest=event.digest))


def _blank(event: Event) -> bytes:
    state = msgspec.structs.replace(event.state, digest="")
    blank = msgspec.structs.replace(event, digest="", state=state)
    return msgspec.json.format(_encoder.encode(blank), indent=1) + b"\n"
