"""What runs inside a function's process, for the tests: each call that it makes is noted, and may be its last.

Python imports this module when it starts, since its directory stands on the PYTHONPATH of the functions. The calls are
caught where they leave the process: each HTTP request of boto3, each request to PostgreSQL, and the answer to Lambda.
What happens is up to a plan, a file that is read when an invocation begins, so that the parent can change it.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_WORDS = 6
_TOO_PLAIN = re.compile(r"""'[^']*'|"[^"]*"|\S*\d{2,}\S*""")
_draw = random.Random(os.getpid())  # noqa: S311 - not for secrets


class Calls:
    """The calls of one invocation after the other, as a journal of one JSON object a line."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._journal = os.open(directory / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._lock = threading.RLock()
        self._table = ""
        self._plan: dict[str, Any] = {}
        self._seen: Counter[str] = Counter()
        self._last = ""
        self.jump = timedelta(0)

    def begin(self, body: Any) -> None:
        """Begin an invocation."""
        self._table = table_of(body)
        self._plan = json.loads((self._directory / "plan.json").read_bytes())
        self._seen.clear()
        self._last = ""
        self.jump = timedelta(seconds=_draw.uniform(-1, 1) * self._plan["clock"])

    def made(self, name: str) -> None:
        """Note a call that was made; the process may not outlive it. Calls that a loop repeats count as one."""
        with self._lock:
            self._seen[name] += name != self._last
            self._last = name
            call = f"{name} #{self._seen[name]}"
            dies = self._plan["kill"].get(self._table) == call or _draw.random() < self._plan["share"]
            entry = {"table": self._table, "call": call, "killed": dies}
            os.write(self._journal, json.dumps(entry).encode() + b"\n")
            if dies:
                self.die()

    def end(self) -> None:
        """End an invocation."""
        self.made("lambda response")

    def die(self) -> None:
        """Kill this process."""
        os.kill(os.getpid(), signal.SIGKILL)


def table_of(body: Any) -> str:
    """Return the table that an invocation's first message names, empty if there is none."""
    try:
        return str(json.loads(json.loads(body)["Records"][0]["body"])["table"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def http_name(method: str, url: str, headers: Mapping[str, Any]) -> str:
    """Return what an HTTP request is called: a service's operation, or what is done to which folder of the lake."""
    authorization, target = (_text(headers.get(name, "")) for name in ("Authorization", "X-Amz-Target"))
    found = re.search(r"/([a-z0-9-]+)/aws4_request", authorization)
    service = found[1] if found else ""
    if target:
        return f"{service} {target.rpartition('.')[2]}"
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    folder = query.get("prefix") or parts.path.partition("/")[2].partition("/")[2]
    return f"{service} {method} {folder.partition('/')[0]} {' '.join(sorted(query))}".rstrip()


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def statement_name(statement: str) -> str:
    """Return how a statement begins, without what differs from run to run."""
    return " ".join(_TOO_PLAIN.sub("", statement[:400]).split()[:_WORDS])


def install(calls: Calls) -> None:
    """Catch the calls. The handler's modules are imported by now."""
    from botocore.httpsession import URLLib3Session  # noqa: PLC0415 - the process starts with what the function imports

    send = URLLib3Session.send

    def send_and_note(session: Any, request: Any) -> Any:
        answer = send(session, request)
        calls.made(http_name(request.method, request.url, request.headers))
        return answer

    URLLib3Session.send = send_and_note  # type: ignore[assignment, method-assign] # that is the point
    _catch_statements(calls)
    pipeline = sys.modules["tidelog.pipeline"]
    if "datetime" not in vars(pipeline):
        raise AssertionError("the clock of tidelog.pipeline is no longer datetime's: let it jump in another way")
    pipeline.datetime = _jumping(calls)  # type: ignore[attr-defined] # what it imported is ours now


def _catch_statements(calls: Calls) -> None:
    """Catch each flush of the driver: of one statement there may be several."""
    import pg8000.core as driver  # noqa: PLC0415 - the process starts with what the function imports

    flush, kind = driver._flush, driver.CoreConnection
    words, flushes = "", 0

    def flush_and_note(sock: Any) -> None:
        nonlocal flushes
        flush(sock)
        flushes += 1
        calls.made(f"postgres {words}" + (f" ({flushes})" if flushes > 1 else ""))

    def remembering(name: str) -> Callable[..., Any]:
        run = getattr(kind, name)

        def wrapped(connection: Any, *arguments: Any, **named: Any) -> Any:
            nonlocal words, flushes
            words, flushes = statement_name(arguments[0]) if name.startswith("execute") else name.strip("_"), 0
            return run(connection, *arguments, **named)

        return wrapped

    driver._flush = flush_and_note
    for name in ("__init__", "execute_simple", "execute_unnamed", "close"):
        setattr(kind, name, remembering(name))


def _jumping(calls: Calls) -> type[datetime]:
    class Jumping(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + calls.jump

    return Jumping


def _watch(directory: Path) -> None:
    from awslambdaric import bootstrap  # noqa: PLC0415 - only in a function's process

    handle, calls, installed = bootstrap.handle_event_request, Calls(directory), list[bool]()

    def begin_and_handle(client: Any, handler: Any, invoke_id: str, body: Any, *others: Any) -> None:
        if not installed:
            install(calls)
            installed.append(True)
        calls.begin(body)
        handle(client, handler, invoke_id, body, *others)
        calls.end()

    bootstrap.handle_event_request = begin_and_handle


if "TIDELOG_CHAOS" in os.environ:
    _watch(Path(os.environ["TIDELOG_CHAOS"]))
