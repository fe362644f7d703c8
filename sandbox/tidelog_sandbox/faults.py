"""Calls of functions that go wrong when somebody says so: AWS fails, throttles, or never answers.

A WSGI wrapper before everything else. It knows a function's call by the user agent, in which boto3 says so; those of
the sandbox itself, and of whoever looks at it from outside, are always answered.
"""

import json
import random
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidelog_sandbox.objects import Wsgi

RESET = "reset"
_FUNCTION = "exec-env/AWS_Lambda"
_LINGER = struct.pack("ii", 1, 0)  # a close that says nothing more than that


@dataclass
class Disturbance:
    """Calls that go wrong.

    Attributes:
        calls: a regular expression found in what `call_name` says of them.
        what: ``reset``, the connection is closed without an answer; or a status and AWS's code, ``503 SlowDown``.
        carried_out: whether they are carried out all the same: only the answer is not what it should be.
        share: of them that go wrong.
        times: how many go wrong; None is no limit.
        seed: of the choice.
        struck: how many have gone wrong.
    """

    calls: str
    what: str
    carried_out: bool = False
    share: float = 1.0
    times: int | None = None
    seed: int = 0
    struck: int = field(init=False, default=0)
    _pattern: re.Pattern[str] = field(init=False, repr=False)
    _draw: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._pattern = re.compile(self.calls)
        self._draw = random.Random(self.seed)  # noqa: S311 - not for secrets

    def strikes(self, call: str) -> bool:
        """Whether a call goes wrong; not for several threads at a time."""
        if self.struck == self.times or not self._pattern.search(call) or self._draw.random() >= self.share:
            return False
        self.struck += 1
        return True


class Faults:
    """The wrapper."""

    def __init__(self, application: Wsgi) -> None:
        self._application = application
        self._lock = threading.Lock()
        self._disturbances: list[Disturbance] = []

    def disturb(self, disturbance: Disturbance) -> None:
        """Let calls go wrong from now on."""
        with self._lock:
            self._disturbances.append(disturbance)

    def calm(self) -> list[int]:
        """Let all go well again, and give how many calls each disturbance has struck."""
        with self._lock:
            struck = [each.struck for each in self._disturbances]
            self._disturbances.clear()
        return struck

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        disturbance = self._striking(environ) if self._disturbances else None
        if disturbance is None:
            return self._application(environ, start_response)
        if disturbance.carried_out:
            list(self._application(environ, lambda *_: None))
        if disturbance.what == RESET:
            _reset(environ["werkzeug.socket"])
        status, _, code = disturbance.what.partition(" ")
        kind, body = _error(_service(environ), code)
        start_response(f"{status} {code}", [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body if environ["REQUEST_METHOD"] != "HEAD" else b""]

    def _striking(self, environ: Mapping[str, Any]) -> Disturbance | None:
        if _FUNCTION not in environ.get("HTTP_USER_AGENT", ""):
            return None
        call = call_name(environ)
        with self._lock:
            return next((each for each in self._disturbances if each.strikes(call)), None)


def call_name(environ: Mapping[str, Any]) -> str:
    """What a call is called, such as ``ssm PutParameter`` or ``s3 PUT /bucket/key?partNumber=1&uploadId=x``."""
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return f"{_service(environ)} {target.rpartition('.')[2]}"
    query = f"?{environ['QUERY_STRING']}" if environ.get("QUERY_STRING") else ""
    return f"{_service(environ)} {environ['REQUEST_METHOD']} {environ['PATH_INFO']}{query}"


def _service(environ: Mapping[str, Any]) -> str:
    """The service that a request is signed for."""
    found = re.search(r"/([a-z0-9-]+)/aws4_request", environ.get("HTTP_AUTHORIZATION", ""))
    return found[1] if found else ""


def _error(service: str, code: str) -> tuple[str, bytes]:
    """An error as a service words it, and the type of that."""
    if service == "s3":
        return "application/xml", f"<Error><Code>{code}</Code><Message>Disturbed.</Message></Error>".encode()
    return "application/x-amz-json-1.1", json.dumps({"__type": code, "message": "Disturbed."}).encode()


def _reset(connection: socket.socket) -> None:
    """Close a connection at once, and leave the request."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    connection.shutdown(socket.SHUT_RD)  # nobody reads another request from it
    connection.close()
    raise ConnectionResetError
