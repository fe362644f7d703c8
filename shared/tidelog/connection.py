"""A connection to PostgreSQL: who is trusted, how silence is noticed, and a session that no configuration can bend."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from pg8000.native import Connection

from tidelog.credentials import Credentials

_CONNECT_SECONDS = 10
_LIST_SECONDS = 50
_SILENCE_SECONDS = 930  # more than a function lives; a peer that is gone is noticed by keep-alive

# Text that does not depend on the server's or the role's configuration, and reads back to the same value.
_SESSION = """
SET client_encoding = 'UTF8'; SET standard_conforming_strings = on; SET search_path = pg_catalog;
SET row_security = off; SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = iso_8601;
SET bytea_output = hex; SET extra_float_digits = 1; SET xmloption = content; SET lc_monetary = 'C';
SET quote_all_identifiers = off;
SET statement_timeout = '{list}s'; SET lock_timeout = '{lock}ms';
SET idle_in_transaction_session_timeout = '{silence}s';
"""

_BUFFER = 2**18  # bytes; see `_BulkConnection`
_NEXT_ROW = b"\nd\0"


class _BulkConnection(Connection):  # type: ignore[misc] # the driver is untyped
    """A connection that takes the rows of a COPY by the buffer: a tenth of the processor time of one by one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sock = self._usock.makefile("rwb", buffering=_BUFFER)  # The server is ready: it says nothing unasked.

    def handle_COPY_DATA(self, data: bytes, context: Any) -> None:  # noqa: N802 - the driver calls it so
        """Pass on a row that the driver has read, and those that lie whole in its buffer behind it.

        Each message is a row (PostgreSQL documentation, "Message Formats", CopyData), so a newline, `d` and the first
        byte of a length below 16 MiB are where one ends and the next begins: no row holds a NUL. Such bytes in the
        middle of a length have a `d` or a NUL before them, and are those of a row longer than the buffer.
        """
        super().handle_COPY_DATA(data, context)
        buffer = self._sock.peek()
        end = buffer.rfind(_NEXT_ROW) + 1
        rows_follow = end > 1 and buffer.startswith(_NEXT_ROW[1:]) and buffer[end - 2] not in _NEXT_ROW[1:]
        if rows_follow and context.stream.write_messages(buffer[:end]):
            self._sock.read(end)


def connect(credentials: Credentials, tls: str, lock_seconds: float) -> Connection:
    """Connect and set the session.

    Args:
        credentials: the database and the role.
        tls: "verify-full", "require" or "disable".
        lock_seconds: how long a lock is waited for.
    """
    context = _tls_context(tls)
    sock = socket.create_connection((credentials.host, credentials.port), _CONNECT_SECONDS)
    try:
        _keep_alive(sock)
        sock.settimeout(_SILENCE_SECONDS)
        connection = _BulkConnection(
            credentials.username,
            host=credentials.host,
            port=credentials.port,
            database=credentials.dbname,
            password=credentials.password,
            sock=sock,
            ssl_context=context,
            application_name="tidelog",
        )
    except BaseException:
        sock.close()
        raise
    lock = max(1, round(lock_seconds * 1000))
    connection.run(_SESSION.format(list=_LIST_SECONDS, lock=lock, silence=_SILENCE_SECONDS))
    return connection


def _tls_context(tls: str) -> ssl.SSLContext | bool:
    if tls == "disable":
        return False
    context = ssl.create_default_context()
    if tls == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _keep_alive(sock: socket.socket) -> None:
    """Have a peer that is gone noticed within a minute, though a statement may be silent for longer."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
