"""A dead-letter queue that only takes letters in, a thousand times as fast as one that is a queue.

It is the endpoint of SQS for a function, and holds each letter to what SQS asks of a message:
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
"""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.chaos.fuzz import is_sendable

MAX_BYTES = 2**20


class Letterbox(ThreadingHTTPServer):
    """The box; it listens as long as its context."""

    daemon_threads = True

    def __init__(self) -> None:
        self.letters: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Request)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Letterbox

    def do_POST(self) -> None:
        """Take a letter."""
        letter = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = _fault(self.headers["X-Amz-Target"], letter)
        if not fault:
            self.server.letters.append(letter)
        body = json.dumps(
            {"__type": "InvalidMessageContents", "message": fault} if fault else _receipt(letter)
        ).encode()
        self.send_response(400 if fault else 200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _receipt(letter: dict[str, Any]) -> dict[str, str]:
    digest = hashlib.md5(letter["MessageBody"].encode(), usedforsecurity=False).hexdigest()
    return {"MessageId": letter["MessageDeduplicationId"], "MD5OfMessageBody": digest, "SequenceNumber": "1"}


def _fault(operation: str, letter: dict[str, Any]) -> str:
    """Say what SQS would not take; empty if it takes the letter."""
    if operation != "AmazonSQS.SendMessage":
        return f"no letter, but {operation}"
    attributes = letter.get("MessageAttributes", {})
    texts = [letter["MessageBody"], *(value["StringValue"] for value in attributes.values())]
    if not all(map(is_sendable, texts)):
        return "a body or a value is empty, or has a character that XML has not"
    size = sum(len(text.encode()) for text in texts)
    size += sum(len(name) + len(value["DataType"]) for name, value in attributes.items())
    if size > MAX_BYTES or len(attributes) > 10:
        return f"{size} bytes, {len(attributes)} attributes"
    if not all(len(letter[name]) <= 128 for name in ("MessageGroupId", "MessageDeduplicationId")):
        return "an id of more than 128 characters"
    return ""
