"""Atomic writes for S3: moto looks whether an object exists and writes it in two steps.

Of twenty threads that complete uploads of one key with ``If-None-Match: *`` moto lets several win. A WSGI wrapper
reads the body first and then holds a lock per object for the rest of the request, so that exactly one wins.
"""

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_WRITES = frozenset({"PUT", "POST", "DELETE"})
_CONFLICT = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>ConditionalRequestConflict</Code><Message>The conditional request cannot succeed due to a conflicting \
operation against this resource.</Message></Error>"""

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class KeyLocks:
    """A lock per name that exists only while somebody holds or awaits it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, list[None]]] = {}

    @contextmanager
    def held(self, name: str) -> Iterator[bool]:
        """Hold the lock of a name; the value says whether it had to be waited for."""
        with self._guard:
            lock, users = self._locks.setdefault(name, (threading.Lock(), []))
            users.append(None)
        contended = not lock.acquire(blocking=False)
        if contended:
            lock.acquire()
        try:
            yield contended
        finally:
            lock.release()
            with self._guard:
                users.pop()
                if not users:
                    del self._locks[name]


class AtomicWrites:
    """The wrapper. Uploads of parts pass freely: they do not change the object.

    With ``conflicts`` a conditional write that met another write of the same object is answered 409
    ConditionalRequestConflict, which the real S3 may do at any time and moto never does.
    """

    def __init__(self, application: Wsgi, *, conflicts: bool) -> None:
        self._application = application
        self._conflicts = conflicts
        self._locks = KeyLocks()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        if (
            environ["REQUEST_METHOD"] not in _WRITES
            or "/s3/aws4_request" not in environ.get("HTTP_AUTHORIZATION", "")
            or "partNumber=" in environ.get("QUERY_STRING", "")
        ):
            return self._application(environ, start_response)
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        with self._locks.held(environ["PATH_INFO"]) as contended:
            if contended and self._conflicts and "HTTP_IF_NONE_MATCH" in environ:
                start_response("409 Conflict", [("Content-Type", "application/xml")])
                return [_CONFLICT]
            return list(self._application(environ, start_response))
