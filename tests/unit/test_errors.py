"""The tree of errors, and which failure of PostgreSQL or AWS is which of them."""

from __future__ import annotations

import copy
import pickle
import re
import ssl
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ProfileNotFound,
    ReadTimeoutError,
)
from pg8000.exceptions import DatabaseError, InterfaceError

from tidelog import errors
from tidelog.errors import (
    AccessDenied,
    DatabaseBusy,
    DatabaseUnreachable,
    OutOfTime,
    Permanent,
    Retryable,
    StoreUnreachable,
    TidelogError,
)
from tidelog.failures import _TABLE, database_errors, error_code, store_errors

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TidelogError)]
Guard = Callable[[str, str], AbstractContextManager[None]]
BRANCH = re.compile(r"(?P<stem>[ │├└─]*)(?P<name>[A-Z]\w+)(?: +(?:\((?P<builtin>\w+)\)|.*))?$")


def drawn() -> dict[str, tuple[str, str | None]]:
    """Return the tree as the module's docstring draws it: of each error its parent and the builtin that it also is."""
    tree: dict[str, tuple[str, str | None]] = {}
    above: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        if line.startswith("    ") and (found := BRANCH.fullmatch(line[4:])):
            depth = len(found["stem"]) // 4
            above[depth] = found["name"]
            tree[found["name"]] = (above.get(depth - 1, "Exception"), found["builtin"])
    return tree


def test_the_tree_is_the_one_that_is_drawn() -> None:
    """Every error is in the drawing, under its parent, with the builtin that it also is."""
    actual = {}
    for kind in ALL:
        parent, *others = (base.__name__ for base in kind.__bases__)
        actual[kind.__name__] = (parent, *others) if others else (parent, None)
    assert drawn() == actual


@pytest.mark.parametrize("kind", ALL)
def test_every_error_reads_as_one_sentence(kind: type[TidelogError]) -> None:
    """Operation, subject, reason and hint, whatever builtin it also is; a KeyError's own text would be a repr."""
    error = kind("read", 'public."my table"', 'it is "gone".', "Look 'there'")
    assert str(error) == 'read public."my table": it is "gone". Look \'there\''
    assert str(kind("read", "x", "why")) == "read x: why"
    assert (error.operation, error.subject, error.hint) == ("read", 'public."my table"', "Look 'there'")


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("way", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy])  # noqa: S301 - our own bytes
def test_every_error_survives_the_way_to_another_process(kind: type[TidelogError], way: type) -> None:
    """Executors pickle what a task raises."""
    error = kind("read", "x", "why", "what next")
    assert (type(way(error)), str(way(error)), vars(way(error))) == (kind, str(error), vars(error))


def test_each_error_is_either_retryable_or_permanent() -> None:
    """A worker decides by that alone."""
    for kind in set(ALL) - {errors.TidelogError, errors.Retryable, errors.Permanent}:
        assert issubclass(kind, errors.Retryable) != issubclass(kind, errors.Permanent)


def postgres(state: str) -> DatabaseError:
    """Return what the driver raises for a SQLSTATE."""
    return DatabaseError({"S": "ERROR", "C": state, "M": "the server's words"})


def client_error(code: str) -> ClientError:
    """Return what boto3 raises for a code of AWS."""
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "PutObject")


SQLSTATES: dict[type[TidelogError], list[str]] = {
    DatabaseUnreachable: [
        *("08000", "08001", "08003", "08004", "08006", "08P01", "53000", "53100", "53200", "53300", "53400"),
        *("57P01", "57P02", "57P03", "57P04", "57P05", "58000", "58030"),
    ],
    OutOfTime: ["57014"],
    DatabaseBusy: [
        *("40001", "40P01", "40002", "40003", "55P03", "55006", "55000", "25P02", "25P03", "XX000", "72000"),
        *("", "?", "P0001", "22012", "42601"),
    ],
    AccessDenied: ["28000", "28P01", "42501", "3D000"],
    errors.NotIngestible: ["0A000", "25006"],
    errors.UnknownTable: ["42P01", "3F000"],
    errors.UnknownColumn: ["42703"],
    errors.UnreadableData: ["22021", "22P05", "54000", "54001", "XX001", "XX002"],
}
AWS_CODES: dict[type[TidelogError], list[str]] = {
    AccessDenied: [
        *("403", "AccessDenied", "AccessDeniedException", "AuthorizationError", "InvalidAccessKeyId"),
        *("SignatureDoesNotMatch", "UnrecognizedClientException", "KMS.DisabledException", "NoSuchBucket", "NotFound"),
        *("ResourceNotFoundException", "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"),
        *("ParameterLimitExceeded", "InvalidClientTokenId"),
    ],
    StoreUnreachable: [
        *("SlowDown", "Throttling", "ThrottlingException", "RequestThrottled", "TooManyRequestsException"),
        *("TooManyUpdates", "RequestLimitExceeded", "500", "503", "InternalError", "InternalFailure"),
        *("InternalServerError", "ServiceUnavailable", "RequestTimeout", "ExpiredToken", ""),
        "ExpiredTokenException",
    ],
}
RETRYABLE = {DatabaseUnreachable, DatabaseBusy, OutOfTime, StoreUnreachable}


def test_what_may_pass_is_retryable_and_what_can_not_is_permanent() -> None:
    """The two halves of what is listed above."""
    for kind in SQLSTATES.keys() | AWS_CODES.keys():
        assert issubclass(kind, Retryable if kind in RETRYABLE else Permanent)


@pytest.mark.parametrize("row", _TABLE, ids=lambda row: f"{row.origin} {row.codes.split(' ')[0]}")
def test_every_row_of_the_table_has_a_hint_and_a_test(row: Any) -> None:
    """A person is told what to do, in words that end as an error's do; each code is one that is tested here."""
    origin, codes, kind, hint = row
    assert hint
    assert hint[0].isupper()
    assert hint[-1] != "."
    assert issubclass(kind, Retryable) != issubclass(kind, Permanent)
    tested = {"PostgreSQL": SQLSTATES, "AWS": AWS_CODES}[origin][kind]
    for code in codes.split(" "):
        assert any(each.startswith(code) if origin == "PostgreSQL" else each == code for each in tested), code


def test_no_code_stands_in_two_rows() -> None:
    """The second would be the one that counts, and nobody would see it."""
    codes = [(row.origin, code) for row in _TABLE for code in row.codes.split(" ")]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("40001", "hot_standby_feedback"),
        ("40P01", "pg_locks"),
        ("55P03", "end it, or wait"),
        ("57014", "an index on a timestamp column helps"),
        ("57P01", "ended the connection"),
        ("53300", "max_connections"),
        ("53100", "short of memory or disk"),
        ("42501", "GRANT SELECT ON the table"),
        ("28P01", "the password in the secret"),
        ("3D000", "the name of the database"),
        ("3F000", "the name of the schema"),
        ("25006", "read-only"),
        ("XX000", "See the server's log"),
    ],
)
def test_a_refusal_of_postgresql_says_what_to_do(state: str, words: str) -> None:
    """By its SQLSTATE, or by the longest beginning of it that is known; words that can hold no row stay."""
    with pytest.raises(TidelogError) as caught, database_errors("read", "public.orders"):
        raise postgres(state)
    assert words in caught.value.hint
    said = (
        "the server's words"
        if state != "XX000"
        else "its message may quote a row, so it stands in the server's log alone"
    )
    assert caught.value.what == f"read public.orders: {said} (SQLSTATE {state})"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AccessDenied", "policy of the function's role"),
        ("InvalidClientTokenId", "aws sts get-caller-identity"),
        ("ExpiredToken", "aws sts get-caller-identity"),
        ("NoSuchBucket", "check --lake"),
        ("ParameterLimitExceeded", "Delete parameters"),
        ("SlowDown", "AWS throttles"),
        ("ServiceUnavailable", "status.aws.amazon.com"),
        ("SomethingNew", "status.aws.amazon.com"),
    ],
)
def test_a_refusal_of_aws_says_what_to_do(code: str, words: str) -> None:
    """By its code, which is told; one that is not known may pass."""
    with pytest.raises(TidelogError) as caught, store_errors("read", "x"):
        raise client_error(code)
    assert words in caught.value.hint
    assert f"({code})" in caught.value.what


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (ProfileNotFound(profile="nope"), "Check AWS_PROFILE"),
        (NoCredentialsError(), "aws sts get-caller-identity"),
        (NoRegionError(), "AWS_DEFAULT_REGION"),
        (EndpointConnectionError(endpoint_url="https://s3"), "AWS_ENDPOINT_URL"),
        (ReadTimeoutError(endpoint_url="https://s3"), "status.aws.amazon.com"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_was_never_asked_of_aws_says_what_to_do(raised: Exception, words: str) -> None:
    """Whoever runs a command mends it where it runs."""
    with pytest.raises(StoreUnreachable, match=words), store_errors("read", "x"):
        raise raised


@pytest.mark.parametrize(
    ("guard", "raised", "kind"),
    [
        *[(database_errors, postgres(state), kind) for kind, states in SQLSTATES.items() for state in states],
        (database_errors, DatabaseError("no dictionary"), DatabaseBusy),
        (database_errors, InterfaceError("network error"), DatabaseUnreachable),
        (database_errors, TimeoutError("timed out"), DatabaseUnreachable),
        (database_errors, ConnectionResetError(), DatabaseUnreachable),
        (database_errors, struct.error("unpack requires 5 bytes"), DatabaseUnreachable),
        (database_errors, ssl.SSLError("handshake"), DatabaseUnreachable),
        *[(store_errors, client_error(code), kind) for kind, codes in AWS_CODES.items() for code in codes],
        (store_errors, EndpointConnectionError(endpoint_url="https://s3"), StoreUnreachable),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_failures_of_the_world_become_errors_of_ours(guard: Guard, raised: Exception, kind: type[TidelogError]) -> None:
    """With operation and subject in front, a hint behind, and the cause chained."""
    with pytest.raises(TidelogError) as caught, guard("read", "public.orders"):
        raise raised
    assert type(caught.value) is kind
    assert caught.value.__cause__ is raised
    assert str(caught.value).startswith("read public.orders: ")
    assert caught.value.hint


@pytest.mark.parametrize("guard", [database_errors, store_errors])
@pytest.mark.parametrize("raised", [*(kind("read", "x", "why") for kind in ALL), KeyError("x"), ValueError("x")])
def test_what_is_ours_or_a_mistake_of_the_code_passes(guard: Guard, raised: Exception) -> None:
    """An error that happens to be a ConnectionError is not taken for one of the socket's."""
    with pytest.raises(type(raised)) as caught, guard("read", "public.orders"):
        raise raised
    assert caught.value is raised


def test_an_untrusted_certificate_is_no_passing_fault() -> None:
    """Nobody's retry mends it."""
    raised = ssl.SSLCertVerificationError("certificate verify failed")
    raised.verify_message = "self-signed certificate"
    with pytest.raises(AccessDenied, match="not trusted: self-signed certificate"), database_errors("connect to", "db"):
        raise raised


def test_a_refusal_of_aws_never_shows_its_text() -> None:
    """Messages of AWS name accounts and keys; the code is enough."""
    with pytest.raises(AccessDenied) as caught, store_errors("read", "x"):
        raise client_error("AccessDenied")
    assert "AWS refused (AccessDenied)" in str(caught.value)
    assert error_code(ClientError({}, "GetObject")) == ""
