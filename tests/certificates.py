"""Authorities and the certificates that they sign, and servers that show them."""

from __future__ import annotations

import ipaddress
import os
import pwd
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.tide import Server
from tidelog_sandbox.postgres import Postgres

HERE = "127.0.0.1"
_DAY = timedelta(days=1)
_PEM = serialization.Encoding.PEM


class Authority:
    """Signs certificates."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        mine = self._built(self._name, self._key.public_key(), _DAY).add_extension(constraints, critical=False)
        self.pem = mine.sign(self._key, hashes.SHA256()).public_bytes(_PEM).decode()

    def sign(self, path: Path, host: str = HERE, *, expired: bool = False) -> Path:
        """Write a certificate for a host, an address or a name, with its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a database")])
        named = x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
        names = x509.SubjectAlternativeName([named])
        until = -_DAY / 24 if expired else _DAY
        signed = self._built(subject, key.public_key(), until).add_extension(names, critical=False)
        text = signed.sign(self._key, hashes.SHA256()).public_bytes(_PEM)
        secret = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.write_bytes(text + secret)
        return path

    def _built(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, until: timedelta) -> x509.CertificateBuilder:
        now, number = datetime.now(UTC), x509.random_serial_number()
        return x509.CertificateBuilder(self._name, subject, key, number, now - _DAY, now + until)


@contextmanager
def relay(server: Server, certificate: Path) -> Iterator[Server]:
    """Put TLS before a server that has none itself, as the wheel's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
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
            behind = socket.create_connection((HERE, server.port))
            for ends in ((secure, behind), (behind, secure)):
                threading.Thread(target=pass_on, args=ends, daemon=True).start()

    with socket.create_server((HERE, 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Server(listener.getsockname()[1], server.password)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


class SystemPostgres(Postgres):
    """The machine's own PostgreSQL, which is built with TLS."""

    _LOCALE = ("--locale=C",)

    @staticmethod
    def found() -> Path | None:
        """Return where the newest version's programs are; None where there is none."""
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
        return found[-1].parent if found else None

    def show(self, certificate: Path) -> None:
        """Show a certificate from now on."""
        shown = self.directory.parent / "certificate.pem"
        shown.write_bytes(certificate.read_bytes())
        shown.chmod(0o600)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(shown, nobody.pw_uid, nobody.pw_gid)
        self.settings |= {"ssl": "on", "ssl_cert_file": str(shown), "ssl_key_file": str(shown)}
        if self.running:
            self.run("SELECT pg_reload_conf()")

    def _reachable_binaries(self) -> Path:
        found = self.found()
        assert found
        return found
