"""Which failure of PostgreSQL or AWS is which of tidelog's errors: one table for each."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError
from pg8000.exceptions import DatabaseError, InterfaceError

from tidelog.errors import (
    AccessDenied,
    DatabaseBusy,
    DatabaseUnreachable,
    NotIngestible,
    StoreUnreachable,
    TidelogError,
    UnknownColumn,
    UnknownTable,
    UnreadableData,
)

# https://www.postgresql.org/docs/current/errcodes-appendix.html, the longest prefix that fits.
_SQLSTATES: dict[str, tuple[type[TidelogError], str]] = {
    "08": (DatabaseUnreachable, "Check that the server is up and that its network can be reached from here"),
    "0A": (NotIngestible, "The server can't read it here: read it from the primary, or exclude it"),
    "22021": (UnreadableData, "The table holds bytes that are no text in the database's encoding: mend the rows"),
    "22P05": (UnreadableData, "The table holds bytes that are no text in the database's encoding: mend the rows"),
    "28": (AccessDenied, "Check the user, the password and pg_hba.conf"),
    "3D000": (AccessDenied, "Check the name of the database"),
    "3F000": (UnknownTable, "Check the name of the schema"),
    "42501": (
        AccessDenied,
        (
            "GRANT USAGE ON its SCHEMA and GRANT SELECT ON the table (and each partition) to the role; "
            "where row-level security would hide rows, it needs BYPASSRLS"
        ),
    ),
    "42703": (UnknownColumn, "Check the names of the columns"),
    "42P01": (UnknownTable, "Check the name of the table"),
    "53": (DatabaseUnreachable, "The server is short of connections, memory or disk"),
    "54": (UnreadableData, "A row is larger than PostgreSQL can print"),
    "57P": (DatabaseUnreachable, "The server is shutting down, starting up or ended the connection"),
    "58": (DatabaseUnreachable, "The server had an error of its system: see its log"),
    "XX001": (UnreadableData, "The server reports damaged data: see its log"),
    "XX002": (UnreadableData, "The server reports a damaged index: see its log"),
    "": (DatabaseBusy, "It is tried again"),
}

_AWS_DENIED = frozenset({
    "AccessDenied", "AccessDeniedException", "InvalidAccessKeyId", "SignatureDoesNotMatch",
    "UnrecognizedClientException", "NoSuchBucket", "ResourceNotFoundException", "QueueDoesNotExist",
    "AWS.SimpleQueueService.NonExistentQueue", "KMS.DisabledException",
})  # fmt: skip


@contextmanager
def database_errors(operation: str, subject: object) -> Iterator[None]:
    """Turn what the driver raises into tidelog's errors."""
    try:
        yield
    except DatabaseError as error:
        raise _of_sqlstate(error, operation, subject) from error
    except ssl.SSLCertVerificationError as error:
        hint = "Give the authority that signed the server's certificate, or ask for less by name (require)"
        raise AccessDenied(
            operation, subject, f"the server's certificate is not trusted: {error.verify_message}", hint
        ) from error
    except (InterfaceError, OSError, struct.error) as error:
        if isinstance(error, TidelogError):
            raise
        hint = _SQLSTATES["08"][1]
        raise DatabaseUnreachable(operation, subject, f"{error or type(error).__name__}", hint) from error


def _of_sqlstate(error: DatabaseError, operation: str, subject: object) -> TidelogError:
    fields = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    state, text = fields.get("C", ""), fields.get("M", str(error))
    found = next(state[:n] for n in range(len(state), -1, -1) if state[:n] in _SQLSTATES)
    kind, hint = _SQLSTATES[found]
    return kind(operation, subject, f"{text} (SQLSTATE {state})", hint)


@contextmanager
def store_errors(operation: str, subject: object) -> Iterator[None]:
    """Turn what boto3 raises into tidelog's errors."""
    try:
        yield
    except ClientError as error:
        code = error_code(error)
        if code in _AWS_DENIED:
            hint = "Check the role's policy and the names in the function's environment"
            raise AccessDenied(operation, subject, f"AWS refused ({code})", hint) from error
        raise StoreUnreachable(operation, subject, f"AWS answered {code}", "It is tried again") from error
    except BotoCoreError as error:
        raise StoreUnreachable(operation, subject, type(error).__name__, "It is tried again") from error


def error_code(error: ClientError) -> str:
    """Return AWS's code of an error, such as NoSuchKey; an answer without a body has its HTTP status."""
    return str(error.response.get("Error", {}).get("Code", ""))
