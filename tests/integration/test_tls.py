"""TLS: which servers are believed, what they are told, and how long they are waited for.

Each certificate is shown by a relay in front of the tests' server, which is built without TLS, and by the machine's own
PostgreSQL where it has one.
"""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from tests.certificates import HERE, Authority, SystemPostgres, relay
from tests.tide import LOCK_SECONDS, Server
from tidelog import connection
from tidelog.connection import connect
from tidelog.credentials import Credentials
from tidelog.errors import AccessDenied, DatabaseUnreachable, InvalidSetting
from tidelog.source import Source

SHOWN = ("right", "of another host", "expired", "of another authority")
REFUSED = {
    "of another host": "IP address mismatch",
    "expired": "certificate has expired",
    "of another authority": "certificate signature failure",
}
GOODBYE = b"X\0\0\0\4"
PASSWORD = "not-for-strangers"


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Who signs the server's certificates."""
    return Authority("the right authority")


@pytest.fixture(scope="module")
def certificates(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Certificates, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("certificates")
    return {
        "right": authority.sign(folder / "right"),
        "of another host": authority.sign(folder / "host", "db.example"),
        "expired": authority.sign(folder / "expired", expired=True),
        "of another authority": Authority("the right authority").sign(folder / "authority"),
    }


@pytest.fixture(scope="module")
def system() -> Iterator[SystemPostgres]:
    """The machine's own PostgreSQL."""
    if not SystemPostgres.found():
        pytest.skip("this machine has no PostgreSQL of its own: tools/get-postgresql installs it")
    server = SystemPostgres(settings={"fsync": "off"})
    yield server
    server.close()


@pytest.fixture(scope="module", params=[f"{how}: {what}" for how in ("relay", "system") for what in SHOWN])
def secured(request: pytest.FixtureRequest, certificates: dict[str, Path], server: Server) -> Iterator[Credentials]:
    """A database behind TLS."""
    how, _, what = request.param.partition(": ")
    if how == "relay":
        with relay(server, certificates[what]) as behind:
            yield behind.credentials("postgres")
        return
    system = request.getfixturevalue("system")
    system.stop()
    system.show(certificates[what])
    system.start()
    yield Credentials(HERE, "postgres", system.password, "postgres", system.port)


@pytest.fixture
def shown(request: pytest.FixtureRequest, secured: Credentials) -> str:
    """What is the matter with the certificate that it shows."""
    return str(request.node.callspec.params["secured"].partition(": ")[2])


def look(credentials: Credentials, tls: str) -> None:
    """Ask the database something, as the functions do."""
    source = Source(lambda: credentials, tls, lock_seconds=LOCK_SECONDS)
    try:
        source.relations()
    finally:
        source.close()


def test_only_the_right_certificate_for_the_right_host_is_believed(
    secured: Credentials, shown: str, authority: Authority
) -> None:
    """Signed by the given authority, valid, and for this address; a refusal is permanent and says what to do."""
    secured = msgspec.structs.replace(secured, ca=authority.pem)
    if shown == "right":
        look(secured, "verify-full")
        with pytest.raises(AccessDenied, match="not trusted: Hostname mismatch"):
            look(msgspec.structs.replace(secured, host="localhost"), "verify-full")
        return
    with pytest.raises(AccessDenied, match=f"not trusted: .*{REFUSED[shown]}.* Put its authority") as refused:
        look(secured, "verify-full")
    assert secured.password not in str(refused.value)


def test_without_an_authority_only_well_known_ones_are_believed(
    secured: Credentials, shown: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RDS's and the public ones."""
    with pytest.raises(AccessDenied, match="not trusted"):
        look(secured, "verify-full")
    if shown != "right":
        return
    known = tmp_path / "known.pem"
    known.write_text(authority.pem, "ascii")
    with monkeypatch.context() as public:
        public.setenv("SSL_CERT_FILE", str(known))
        look(secured, "verify-full")
    monkeypatch.setattr(connection, "_RDS", known)
    look(secured, "verify-full")


def test_require_encrypts_and_believes_anybody(secured: Credentials) -> None:
    """As its name says; the password is proved by SCRAM, bound to the connection where the server can do that."""
    found = connect(secured, "require", LOCK_SECONDS)
    [[encrypted]] = found.run("SELECT coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)")
    assert isinstance(found._usock, ssl.SSLSocket)
    assert found.auth.mechanism_name == ("SCRAM-SHA-256-PLUS" if encrypted else "SCRAM-SHA-256")
    found.close()


@pytest.mark.parametrize("tls", ["require", "verify-full"])
def test_a_server_without_tls_is_told_nothing(server: Server, tls: str) -> None:
    """Where TLS is asked for, plain text is not taken instead, and no retry would help."""
    with pytest.raises(AccessDenied, match=r"does not speak TLS.*\(disable\)"):
        look(server.credentials("postgres"), tls)


def test_an_authority_that_is_none_is_an_error_that_does_not_tell_it(server: Server) -> None:
    """Nobody is believed instead."""
    for ca in ("canary", "-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----\n", "\N{SNOWMAN}"):
        with pytest.raises(InvalidSetting, match="its ca is no certificate") as refused:
            look(msgspec.structs.replace(server.credentials("postgres"), ca=ca), "verify-full")
        assert "canary" not in str(refused.value)


def test_the_authorities_of_rds_are_complete_and_last() -> None:
    """For each region three, all of which sign for themselves and hold for years."""
    found = x509.load_pem_x509_certificates(connection._RDS.read_bytes())
    names = [each.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value for each in found]
    assert len(names) == len(set(names))
    for name, each in zip(names, found, strict=True):
        assert str(name).startswith("Amazon RDS ")
        each.verify_directly_issued_by(each)
        assert each.not_valid_after_utc > datetime.now(UTC) + timedelta(days=3650)
    regions = {str(name).split()[2] for name in names}
    assert {"eu-west-2", "us-east-1", "ap-southeast-2"} < regions
    assert len(found) == 3 * len(regions)


def message(code: int, body: bytes = b"") -> bytes:
    """Return a request for authentication."""
    return b"R" + (len(body) + 8).to_bytes(4, "big") + code.to_bytes(4, "big") + body


Talk = Callable[[socket.socket], bytes]


@contextmanager
def server_that(talk: Talk) -> Iterator[tuple[Server, list[bytes]]]:
    """Serve one connection with something that is no PostgreSQL; what it returns can be read at the end."""
    heard: list[bytes] = []

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            client.recv(4096)  # who wants to connect to what
            with suppress(ConnectionError):
                heard.append(talk(client))

    with socket.create_server((HERE, 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Server(listener.getsockname()[1], PASSWORD), heard
        thread.join()


def asks_in_plain_text(client: socket.socket) -> bytes:
    """Ask for the password as it is, as RDS does for a token of IAM."""
    client.sendall(message(3))
    return client.recv(4096)


def asks_by_md5(client: socket.socket) -> bytes:
    """Ask for a hash that can be tried out at leisure."""
    client.sendall(message(5, b"salt"))
    return client.recv(4096)


def knows_no_password(client: socket.socket) -> bytes:
    """Play SCRAM to its end without knowing the password, as somebody in between would."""
    client.sendall(message(10, b"SCRAM-SHA-256\0\0"))
    nonce = client.recv(4096).rpartition(b"r=")[2]
    client.sendall(message(11, b"r=%sx,s=%s,i=4096" % (nonce, base64.b64encode(bytes(16)))))
    proof = client.recv(4096)
    client.sendall(message(12, b"v=" + base64.b64encode(bytes(32))) + message(0))
    return proof


@pytest.mark.parametrize(
    ("talk", "words"),
    [
        (asks_in_plain_text, "in plain text.*Have it ask for SCRAM"),
        (asks_by_md5, "by MD5.*Have it ask for SCRAM"),
        (knows_no_password, "it does not prove that it knows the password.*Check the host"),
    ],
)
def test_a_server_that_is_not_verified_does_not_get_the_password(talk: Talk, words: str) -> None:
    """Whatever it asks for: SCRAM alone is answered, and whoever does not know the password gives himself away."""
    with server_that(talk) as (server, heard):
        with pytest.raises(AccessDenied, match=words) as refused:
            look(server.credentials("postgres"), "disable")
        assert PASSWORD not in str(refused.value)
    if talk is knows_no_password:
        assert b",p=" in heard[0]
    else:
        assert heard[0] in (b"", GOODBYE)
    assert PASSWORD.encode() not in heard[0]


def test_a_verified_server_may_ask_for_the_password(authority: Authority, certificates: dict[str, Path]) -> None:
    """As RDS does for a token of IAM."""
    with server_that(asks_in_plain_text) as (server, heard), relay(server, certificates["right"]) as behind:
        to = msgspec.structs.replace(behind.credentials("postgres"), ca=authority.pem)
        with pytest.raises(DatabaseUnreachable):  # It hangs up.
            look(to, "verify-full")
    assert heard == [b"p" + (len(PASSWORD) + 5).to_bytes(4, "big") + PASSWORD.encode() + b"\0"]


@pytest.mark.parametrize("tls", ["disable", "verify-full"])
def test_a_server_that_is_silent_or_hangs_up_is_not_waited_for(tls: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is the fault of the settings: it may answer later."""
    monkeypatch.setattr(connection, "_ANSWER_SECONDS", 0.2)
    for talk in (lambda client: client.recv(1), lambda _: b""):
        with server_that(talk) as (server, heard), pytest.raises(DatabaseUnreachable, match="Check that the server"):
            look(server.credentials("postgres"), tls)
        assert heard[0] in (b"", GOODBYE[:1])
