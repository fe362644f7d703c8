"""The database's secret, in the format of RDS, and the connection that it and the settings ask for."""

from __future__ import annotations

import ipaddress
import json
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.conftest import Aws
from tests.faults import Process, Step, refusal
from tests.tide import LOCK_SECONDS, Database
from tidelog.credentials import Credentials, read_credentials
from tidelog.errors import AccessDenied, DatabaseUnreachable, InvalidSetting, StoreUnreachable
from tidelog.source import Source

RDS = {
    "engine": "postgres",
    "host": "db.example",
    "port": 5433,
    "username": "reader",
    "password": "p4ss",
    "dbname": "shop",
}


def stored(aws: Aws, text: str) -> str:
    """Store a secret; return its ARN."""
    arn: str = aws.secrets.create_secret(Name=uuid.uuid4().hex, SecretString=text)["ARN"]
    return arn


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Credentials("db.example", "reader", "p4ss", "shop", 5433)),
        ({"port": "5433"}, Credentials("db.example", "reader", "p4ss", "shop", 5433)),
        ({"port": ..., "dbname": ...}, Credentials("db.example", "reader", "p4ss", "postgres", 5432)),
        ({"dbInstanceIdentifier": "x", "masterarn": "y"}, Credentials("db.example", "reader", "p4ss", "shop", 5433)),
    ],
)
def test_a_secret_of_rds_is_understood(aws: Aws, changes: dict[str, Any], expected: Credentials) -> None:
    """As RDS writes it, as a person does, and with the defaults left out."""
    secret = {name: value for name, value in (RDS | changes).items() if value is not ...}
    assert read_credentials(aws.secrets, stored(aws, json.dumps(secret))) == expected


@pytest.mark.parametrize(
    "text",
    [
        "p4ss",
        '"p4ss"',
        '{"password": "p4ss"}',
        json.dumps(RDS | {"host": ["p4ss"]}),
        json.dumps(RDS | {"port": "p4ss"}),
    ],
)
def test_a_secret_of_another_format_is_an_error_that_does_not_tell_it(aws: Aws, text: str) -> None:
    """It says what a secret has to look like."""
    with pytest.raises(
        InvalidSetting, match="Store a JSON object with host, port, dbname, username and password"
    ) as refused:
        read_credentials(aws.secrets, stored(aws, text))
    assert "p4ss" not in f"{refused.value} {refused.value.__cause__}"


def test_a_secret_that_cannot_be_read_is_an_error(aws: Aws) -> None:
    """Permanent where it is not there, retryable where AWS is busy."""
    with pytest.raises(AccessDenied, match="ResourceNotFoundException"):
        read_credentials(aws.secrets, "no-such-secret")
    process = Process()
    process.at("before", Step("get_secret_value"), refusal("ThrottlingException"))
    with pytest.raises(StoreUnreachable):
        read_credentials(process.client(aws.secrets), "any")


def test_a_password_is_never_shown() -> None:
    """Neither in a log nor in a traceback's locals."""
    credentials = Credentials("db.example", "reader", "p4ss", "shop", 5433)
    assert "p4ss" not in f"{credentials} {credentials!r} {[credentials]}"
    assert "reader@db.example:5433/shop" in str(credentials)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"password": "wrong"}, AccessDenied, "password authentication failed"),
        ({"username": "nobody_such"}, AccessDenied, "password authentication failed"),
        ({"dbname": "nosuch"}, AccessDenied, "Check the name of the database"),
        ({"port": 1}, DatabaseUnreachable, "Check that the server is up"),
        ({"host": "no.such.host.invalid"}, DatabaseUnreachable, "Check that the server is up"),
    ],
)
def test_a_database_that_cannot_be_reached_is_a_readable_error(
    database: Database, change: dict[str, Any], kind: type[Exception], words: str
) -> None:
    """Which says whose fault it may be, and never the password."""
    here = database.server.credentials(database.name)
    fields = {name: getattr(here, name) for name in here.__struct_fields__} | change
    with pytest.raises(kind, match=words) as refused:
        Source(lambda: Credentials(**fields), "disable", lock_seconds=LOCK_SECONDS).relations()
    assert fields["password"] not in str(refused.value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that nobody has signed, for 127.0.0.1, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "database")])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + secret)
    return path


@pytest.fixture
def trust(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what has the certificate trusted."""
    return lambda: monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


@pytest.fixture
def proxied(database: Database, certificate: Path) -> Iterator[Credentials]:
    """The database as it is reached through TLS, of which the embedded server has none itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def relay(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                end.close()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                client.recv(8)  # the request for TLS
                client.sendall(b"S")
                secure = context.wrap_socket(client, server_side=True)
            except OSError:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", database.server.port))
            for ends in ((secure, server), (server, secure)):
                threading.Thread(target=relay, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield msgspec.structs.replace(database.server.credentials(database.name), port=listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    ("asked", "trusted", "error"),
    [
        ("require 127.0.0.1", False, None),
        ("require localhost", False, None),
        ("verify-full 127.0.0.1", True, None),
        ("verify-full 127.0.0.1", False, "the server's certificate is not trusted"),
        ("verify-full localhost", True, "the server's certificate is not trusted: Hostname mismatch"),
    ],
)
def test_a_certificate_is_verified_unless_less_is_asked_for(
    proxied: Credentials, trust: Callable[[], None], *, asked: str, trusted: bool, error: str | None
) -> None:
    """By its signature and its name; a refusal is permanent and says what to do."""
    if trusted:
        trust()
    tls, host = asked.split()
    source = Source(lambda: msgspec.structs.replace(proxied, host=host), tls, lock_seconds=LOCK_SECONDS)
    with nullcontext() if error is None else pytest.raises(AccessDenied, match=error):
        assert source.relations() == ()
    source.close()


@pytest.mark.parametrize("tls", ["require", "verify-full"])
def test_a_server_without_tls_is_never_given_the_password(database: Database, tls: str) -> None:
    """Where TLS is asked for, plain text is not taken instead."""
    source = Source(lambda: database.server.credentials(database.name), tls, lock_seconds=LOCK_SECONDS)
    with pytest.raises(DatabaseUnreachable, match="SSL"):
        source.relations()
