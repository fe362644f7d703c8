"""Which failure of PostgreSQL or AWS is which of tidelog's errors, and what a person can do about it: one table."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from tidelog.errors import (
    AccessDenied,
    DatabaseBusy,
    DatabaseUnreachable,
    NotIngestible,
    OutOfTime,
    StoreUnreachable,
    TidelogError,
    UnknownColumn,
    UnknownTable,
    UnreadableData,
)

if TYPE_CHECKING:
    from pg8000.exceptions import DatabaseError


class _Row(NamedTuple):
    origin: Literal["PostgreSQL", "AWS"]
    codes: str
    """SQLSTATEs or what they begin with, or AWS's error codes; the longest that fits counts."""
    kind: type[TidelogError]
    hint: str


# What begins so tells of names, never of values; other messages (class 22, or what a function raises) may quote a row.
_HARMLESS = ("08", "0A", "25", "28", "3D", "3F", "40", "42", "53", "54", "55", "57", "58", "XX001", "XX002")
_FIELDS = frozenset("SVCRFLstcdn")
"""Of an error, those that hold names and codes: PostgreSQL documentation, "Error and Notice Message Fields"."""

_ENCODING = "The table holds bytes that are no text in the database's encoding: mend the rows"
_GIVEN = "in the secret (of a command without one, in --database"
_ROLE = (
    "Check the policy of the function's role, or of who runs the command, and the names in the function's environment"
)
_IDENTITY = "Check the credentials (aws sts get-caller-identity)"
_SILENT = "See status.aws.amazon.com, and the network of who asks, be it a function, if it lasts"

# https://www.postgresql.org/docs/current/errcodes-appendix.html
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and "Common errors" of each other service
_TABLE = (
    _Row("PostgreSQL", "", DatabaseBusy, "See the server's log"),
    _Row("PostgreSQL", "08", DatabaseUnreachable, "Check that the server is up and that its network can be reached"),
    _Row("PostgreSQL", "0A", NotIngestible, "The server can't read it here: read it from the primary, or exclude it"),
    _Row("PostgreSQL", "22021 22P05", UnreadableData, _ENCODING),
    _Row("PostgreSQL", "25006", NotIngestible, "Reading it writes: make its functions read-only, or exclude it"),
    _Row(
        "PostgreSQL", "28", AccessDenied, f"Check the user and the password {_GIVEN} and PGPASSWORD), and pg_hba.conf"
    ),
    _Row("PostgreSQL", "3D000", AccessDenied, f"Check the name of the database {_GIVEN})"),
    _Row("PostgreSQL", "3F000", UnknownTable, "Check the name of the schema"),
    _Row("PostgreSQL", "40", DatabaseBusy, "Transactions were in each other's way; where it goes on, see pg_locks"),
    _Row(
        "PostgreSQL",
        "40001",
        DatabaseBusy,
        "On a standby: raise max_standby_streaming_delay or set hot_standby_feedback",
    ),
    _Row(
        "PostgreSQL",
        "42501",
        AccessDenied,
        "GRANT USAGE ON its SCHEMA and GRANT SELECT ON the table (and each partition) to the role; where row-level "
        "security would hide rows, it needs BYPASSRLS",
    ),
    _Row("PostgreSQL", "42703", UnknownColumn, "Check the names of the columns"),
    _Row("PostgreSQL", "42P01", UnknownTable, "Check the name of the table"),
    _Row("PostgreSQL", "53", DatabaseUnreachable, "The server is short of memory or disk: see its log"),
    _Row(
        "PostgreSQL",
        "53300",
        DatabaseUnreachable,
        "Raise the server's max_connections or the role's CONNECTION LIMIT, or lower WorkConcurrency",
    ),
    _Row("PostgreSQL", "54", UnreadableData, "A row is larger than PostgreSQL can print"),
    _Row("PostgreSQL", "55P03", DatabaseBusy, "A session holds a lock on the table (see pg_locks): end it, or wait"),
    _Row(
        "PostgreSQL",
        "57014",
        OutOfTime,
        "It took longer than a function lives: an index on a timestamp column helps, or a smaller ChunkMegabytes",
    ),
    _Row(
        "PostgreSQL", "57P", DatabaseUnreachable, "The server is starting up or shutting down, or ended the connection"
    ),
    _Row("PostgreSQL", "58", DatabaseUnreachable, "The server had an error of its system: see its log"),
    _Row(
        "PostgreSQL", "XX001 XX002", UnreadableData, "The server reports damaged data or a damaged index: see its log"
    ),
    _Row("AWS", "", StoreUnreachable, _SILENT),
    _Row(
        "AWS",
        "403 AccessDenied AccessDeniedException AuthorizationError KMS.DisabledException",
        AccessDenied,
        _ROLE,
    ),
    _Row(
        "AWS",
        "InvalidAccessKeyId InvalidClientTokenId SignatureDoesNotMatch UnrecognizedClientException",
        AccessDenied,
        _IDENTITY,
    ),
    _Row("AWS", "ExpiredToken ExpiredTokenException", StoreUnreachable, _IDENTITY),
    _Row(
        "AWS",
        "NoSuchBucket",
        AccessDenied,
        "There is no such bucket: check --lake, or the names in the function's environment",
    ),
    _Row(
        "AWS",
        "NotFound ResourceNotFoundException QueueDoesNotExist AWS.SimpleQueueService.NonExistentQueue",
        AccessDenied,
        _ROLE,
    ),
    _Row("AWS", "ParameterLimitExceeded", AccessDenied, "Delete parameters: an account has 10,000 standard ones"),
    _Row(
        "AWS",
        "SlowDown Throttling ThrottlingException RequestThrottled TooManyRequestsException TooManyUpdates "
        "RequestLimitExceeded",
        StoreUnreachable,
        "AWS throttles: if it lasts, lower WorkConcurrency, or raise the account's quota",
    ),
)

_UNSENT = {
    "ProfileNotFound": "Check AWS_PROFILE",
    **dict.fromkeys(
        (
            *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"),
            *("SSOTokenLoadError", "TokenRetrievalError", "UnauthorizedSSOTokenError"),
        ),
        _IDENTITY,
    ),
    "NoRegionError": "Set AWS_DEFAULT_REGION, or run aws configure",
    "EndpointConnectionError": f"Check AWS_ENDPOINT_URL if it is set. {_SILENT}",
}
"""What to do where botocore fails before AWS was asked."""


def _rows(origin: str) -> dict[str, tuple[type[TidelogError], str]]:
    return {code: (row.kind, row.hint) for row in _TABLE if row.origin == origin for code in row.codes.split(" ")}


_SQLSTATES, _AWS_CODES = _rows("PostgreSQL"), _rows("AWS")


@contextmanager
def database_errors(operation: str, subject: object) -> Iterator[None]:
    """Turn what the driver raises into tidelog's errors."""
    from pg8000.exceptions import DatabaseError, InterfaceError  # noqa: PLC0415 - who reads a lake needs no driver

    try:
        yield
    except DatabaseError as error:
        raise _of_sqlstate(error, operation, subject) from error
    except ssl.SSLCertVerificationError as error:
        hint = "Put its authority into the secret (ca), or ask for less by name (require)"
        raise AccessDenied(
            operation, subject, f"the server's certificate is not trusted: {error.verify_message}", hint
        ) from error
    except (InterfaceError, OSError, struct.error) as error:
        if isinstance(error, TidelogError):
            raise
        hint = _SQLSTATES["08"][1]
        raise DatabaseUnreachable(operation, subject, f"{error or type(error).__name__}", hint) from error


def _of_sqlstate(error: DatabaseError, operation: str, subject: object) -> TidelogError:
    state, text = sqlstate(error), told(error)
    found = next(state[:n] for n in range(len(state), -1, -1) if state[:n] in _SQLSTATES)
    kind, hint = _SQLSTATES[found]
    return kind(operation, subject, text, hint)


def sqlstate(error: DatabaseError) -> str:
    """Return the code of an error of the server; empty if it has none."""
    fields = error.args[0] if error.args else None
    return str(fields.get("C", "")) if isinstance(fields, dict) else ""


def told(error: DatabaseError) -> str:
    """Return what an error of the server says without telling a row; what else it says is taken out of it.

    That goes for the traceback too, which prints it. The server's own log has all of it.
    """
    fields = error.args[0] if error.args else None
    if not isinstance(fields, dict):
        return f"{error} (SQLSTATE )"
    state = sqlstate(error)
    harmless = state.startswith(_HARMLESS)
    error.args = ({key: text for key, text in fields.items() if key in _FIELDS or (key in "MH" and harmless)},)
    text = fields.get("M", "") if harmless else "its message may quote a row, so it stands in the server's log alone"
    return f"{text} (SQLSTATE {state})"


@contextmanager
def store_errors(operation: str, subject: object) -> Iterator[None]:
    """Turn what boto3 raises into tidelog's errors."""
    try:
        yield
    except ClientError as error:
        code = error_code(error)
        kind, hint = _AWS_CODES.get(code, _AWS_CODES[""])
        said = "refused" if kind is AccessDenied else "answered"
        raise kind(operation, subject, f"AWS {said} ({code})", hint) from error
    except ResponseParserError:
        # Its message has all that was answered, which may be a page of whatever stands in between.
        raise StoreUnreachable(operation, subject, "the answer is not AWS's", _SILENT) from None
    except BotoCoreError as error:
        what = type(error).__name__
        raise StoreUnreachable(operation, subject, what, _UNSENT.get(what, _SILENT)) from error


def error_code(error: ClientError) -> str:
    """Return AWS's code of an error, such as NoSuchKey; an answer without a body has its HTTP status."""
    return str(error.response.get("Error", {}).get("Code", ""))
