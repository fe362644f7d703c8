"""A connection to PostgreSQL: who is trusted, how silence is noticed, and a session that no configuration can bend."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

from pg8000.native import Connection, InterfaceError
from scramp import ScramException

from tidelog.credentials import Credentials
from tidelog.errors import AccessDenied, InvalidSetting
from tidelog.wire import Wire

_CONNECT_SECONDS = 10
_ANSWER_SECONDS = 30  # for TLS, and for being let in
_LIST_SECONDS = 50
_SILENCE_SECONDS = 930  # more than a function lives; a peer that is gone is noticed by keep-alive

# Text that does not depend on the server's or the role's configuration, and reads back to the same value. `lc_monetary`
# is left alone: how many of the digits of a stored `money` are a fraction is known by nothing else.
_SESSION = """
SET client_encoding = 'UTF8'; SET standard_conforming_strings = on; SET search_path = pg_catalog;
SET row_security = off; SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = iso_8601;
SET bytea_output = hex; SET extra_float_digits = 1; SET xmloption = content;
SET quote_all_identifiers = off; SET default_transaction_read_only = on;
SET statement_timeout = '{list}s'; SET lock_timeout = '{lock}ms';
SET idle_in_transaction_session_timeout = '{silence}s';
"""

_RDS = Path(__file__).with_name("rds.pem")
_TLS_REQUEST = bytes.fromhex("0000000804d2162f")
_PLAIN_TEXT, _MD5 = 3, 5  # of AuthenticationRequest; PostgreSQL documentation, "Message Formats"


class _Untrusted(Exception):
    """A server that is not told the password."""


class ClosingConnection(Connection):  # type: ignore[misc] # the driver is untyped
    """A connection that closes its socket. The driver leaves that to who holds its file last, be it an error."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(*args, **kwargs)
        except BaseException:
            _release(getattr(self, "_sock", None))
            raise

    def close(self) -> None:
        """Close it, and the socket at once."""
        file = self._sock
        try:
            super().close()
        finally:
            _release(file)


class _BulkConnection(ClosingConnection):
    """A connection that takes the rows of a COPY by the buffer: a tenth of the processor time of one by one."""

    def __init__(self, *args: Any, verified: bool, **kwargs: Any) -> None:
        self._verified = verified
        super().__init__(*args, **kwargs)
        self._usock.settimeout(_SILENCE_SECONDS)
        self._sock = Wire(self._usock)  # The server is ready: it says nothing unasked.

    def handle_AUTHENTICATION_REQUEST(self, data: bytes, context: Any) -> None:  # noqa: N802 - the driver calls it so
        """Prove the password by SCRAM, which does not tell it. Only a server that is verified may ask for more."""
        asked = int.from_bytes(data[:4], "big")
        if asked in (_PLAIN_TEXT, _MD5) and not self._verified:
            how = "in plain text" if asked == _PLAIN_TEXT else "by MD5"
            raise _Untrusted(f"the server asks for the password {how}, and nothing proves that it is the right one")
        super().handle_AUTHENTICATION_REQUEST(data, context)

    def handle_COPY_DATA(self, data: bytes, context: Any) -> None:  # noqa: N802 - the driver calls it so
        """Pass on a row that the driver has read, and those behind it as they come."""
        super().handle_COPY_DATA(data, context)
        self._sock.pass_on(context.stream.write_messages)


def connect(credentials: Credentials, tls: str, lock_seconds: float) -> Connection:
    """Connect and set the session, which can only read.

    Args:
        credentials: the database and the role, and who has signed the server's certificate if nobody well-known.
        tls: "verify-full": the certificate is signed by an authority that is trusted, and for this host; "require": any
            server is spoken to, but never in plain text; "disable": plain text.
        lock_seconds: how long a lock is waited for.

    Raises:
        AccessDenied: the server has no TLS, or asks for a password that it must not be told.
        InvalidSetting: the authority is no certificate.
        Exception: what the driver and the network raise (`failures.database_errors`).
    """
    context = _tls_context(credentials, tls)
    sock = socket.create_connection((credentials.host, credentials.port), _CONNECT_SECONDS)
    try:
        _keep_alive(sock)
        sock.settimeout(_ANSWER_SECONDS)
        if context:
            sock = _secured(sock, context, credentials)
        connection = _BulkConnection(
            credentials.username,
            verified=tls == "verify-full",
            host=credentials.host,
            port=credentials.port,
            database=credentials.dbname,
            password=credentials.password,
            sock=sock,
            ssl_context=False,
            application_name="tidelog",
        )
    except _Untrusted as error:
        sock.close()
        hint = "Have it ask for SCRAM (password_encryption, pg_hba.conf), or connect with verify-full"
        raise AccessDenied("connect to", credentials, str(error), hint) from error
    except ScramException as error:
        sock.close()
        hint = "Check the host in the secret, and who may answer in its place"
        raise AccessDenied("connect to", credentials, "it does not prove that it knows the password", hint) from error
    except BaseException:
        sock.close()
        raise
    lock = max(1, round(lock_seconds * 1000))
    try:
        connection.run(_SESSION.format(list=_LIST_SECONDS, lock=lock, silence=_SILENCE_SECONDS))
    except BaseException:
        with suppress(OSError, InterfaceError):
            connection.close()
        raise
    return connection


def _release(file: Any) -> None:
    if file:
        with suppress(OSError):  # What it still holds can't be sent any more.
            file.close()


def _secured(sock: socket.socket, context: ssl.SSLContext, credentials: Credentials) -> socket.socket:
    """Ask for TLS and speak it. Source: PostgreSQL documentation, "SSL Session Encryption"."""
    sock.sendall(_TLS_REQUEST)
    answer = sock.recv(1)
    if answer == b"S":
        return context.wrap_socket(sock, server_hostname=credentials.host)
    if not answer:
        raise ConnectionError("the server closed the connection when it was asked for TLS")
    hint = "Turn TLS on at the server (ssl = on), or ask for plain text by name (disable)"
    raise AccessDenied("connect to", credentials, "the server does not speak TLS", hint)


def _tls_context(credentials: Credentials, tls: str) -> ssl.SSLContext | None:
    """Return what TLS is spoken with. Without an authority of its own a server is known by RDS's or a public one."""
    if tls == "disable":
        return None
    if tls == "require":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        context = ssl.create_default_context(cadata=credentials.ca or None)
    except (ssl.SSLError, ValueError, TypeError) as error:
        hint = "Put certificates in PEM there, or leave ca out for RDS's authorities and the public ones"
        raise InvalidSetting("read", "the database's secret", "its ca is no certificate", hint) from error
    if not credentials.ca:
        context.load_verify_locations(_RDS)
    # What many a private authority leaves out (RFC 5280 in full) and Python asks for since 3.13; libpq does not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _keep_alive(sock: socket.socket) -> None:
    """Have a peer that is gone noticed within a minute, though a statement may be silent for longer."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
