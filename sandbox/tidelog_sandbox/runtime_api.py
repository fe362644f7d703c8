"""The Runtime API of Lambda, for one execution environment: it hands out requests and takes results.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import http.server
import queue
import socket
import socketserver
import sys
import threading
import time
import uuid
from collections.abc import Mapping

RESPONSE_LIMIT = 6 * 1024 * 1024 + 100
"""The most bytes of a response, as Lambda has it."""


class RuntimeApi(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """A server on a port of its own, in a thread of its own.

    Attributes:
        requests: request id, payload and deadline (milliseconds since 1970) of what is to be run; None ends it.
        results: ``response`` or ``error``, and the body, of what was run.
        beginnings: ``ready``, or ``error`` and a body, of the initialization.
        ready: whether the environment has asked for an invocation.
        bell: readable when something was posted to results or beginnings.
    """

    daemon_threads = True

    def __init__(self, function_arn: str) -> None:
        self.function_arn = function_arn
        self.requests: queue.SimpleQueue[tuple[str, bytes, int] | None] = queue.SimpleQueue()
        self.results: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self.beginnings: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self.ready = threading.Event()
        self.bell, self._striker = socket.socketpair()
        self._closed = False
        super().__init__(("127.0.0.1", 0), _RuntimeRequest)
        self.address = f"127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self._serve, daemon=True, name=f"runtime api {self.server_port}")
        self._thread.start()

    def post(self, posts: "queue.SimpleQueue[tuple[str, bytes]]", what: str, body: bytes = b"") -> None:
        """Leave something for the thread that waits, and wake it."""
        posts.put((what, body))
        self._striker.send(b".")

    def hear(self) -> None:
        """Quiet the bell."""
        self.bell.recv(64)

    def close(self) -> None:
        """Stop listening, and let the request go that waits for an invocation."""
        self._closed = True
        self.requests.put(None)
        with socket.create_connection(("127.0.0.1", self.server_port)):  # wakes the thread that accepts
            self._thread.join()
        self.server_close()
        self.bell.close()
        self._striker.close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of an environment that was killed while it asked or answered: that is how they end."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type] # wider than what is handed over

    def _serve(self) -> None:
        while not self._closed:
            self.handle_request()

    def verify_request(self, request: object, client_address: object) -> bool:
        """Take no more requests once closed."""
        del request, client_address
        return not self._closed


class _RuntimeRequest(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement
    wbufsize = -1
    server: RuntimeApi

    def do_GET(self) -> None:
        """The next invocation, when there is one."""
        if not self.server.ready.is_set():
            self.server.ready.set()
            self.server.post(self.server.beginnings, "ready")
        request = self.server.requests.get()
        if request is None:
            self.close_connection = True
            return
        request_id, payload, deadline = request
        self._reply(
            200,
            payload,
            {
                "Content-Type": "application/json",
                "Lambda-Runtime-Aws-Request-Id": request_id,
                "Lambda-Runtime-Deadline-Ms": str(deadline),
                "Lambda-Runtime-Invoked-Function-Arn": self.server.function_arn,
                "Lambda-Runtime-Trace-Id": f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]};Sampled=0",
            },
        )

    def do_POST(self) -> None:
        """A response, or an error, of an invocation or of the initialization."""
        body = self._body()
        *_, subject, what = self.path.split("/")
        # First the post: once it has its reply, the process may exit.
        self.server.post(self.server.beginnings if subject == "init" else self.server.results, what, body)
        self._reply(413 if what == "response" and len(body) > RESPONSE_LIMIT else 202, b'{"status":"OK"}', {})

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self._read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self._whole(self.rfile.readline()), 16):
            body += self._read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _read(self, size: int) -> bytes:
        return self._whole(self.rfile.read(size), size)

    def _whole(self, data: bytes, size: int = 1) -> bytes:
        """What was read, unless the process was killed before it had said all: that is no answer."""
        if len(data) < size:
            raise ConnectionResetError
        return data

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
