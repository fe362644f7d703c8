"""A relay between a program and its servers, which counts how often the program asks and waits for an answer.

It is a process of its own: `python -m benchmarks.relay HOST:PORT …` says on its first line at which ports it stands in
for them. For each line on its standard input it says how many exchanges there were with each since the last one.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from contextlib import suppress

_BUFFER = 2**16


class Relay:
    """Stands in for one server."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._exchanges = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    def count(self) -> int:
        """Return the exchanges since this was last asked."""
        with self._lock:
            count, self._exchanges = self._exchanges, 0
        return count

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(self._target)
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answered = threading.Event()
            answered.set()
            threading.Thread(target=self._ask, args=(client, server, answered), daemon=True).start()
            threading.Thread(target=self._answer, args=(client, server, answered), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket, answered: threading.Event) -> None:
        """Pass on what the client says: an exchange begins with what it says after an answer."""
        with suppress(OSError):
            while data := client.recv(_BUFFER):
                if answered.is_set():
                    answered.clear()
                    with self._lock:
                        self._exchanges += 1
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _answer(self, client: socket.socket, server: socket.socket, answered: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(_BUFFER):
                if not data.startswith(b"HTTP/1.1 100"):  # Of a request in two parts this is none.
                    answered.set()
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)


def main() -> None:
    """Relay until the standard input ends."""
    pairs = (argument.rpartition(":") for argument in sys.argv[1:])
    relays = [Relay(host, int(port)) for host, _, port in pairs]
    print(json.dumps([relay.port for relay in relays]), flush=True)
    for _ in sys.stdin:
        print(json.dumps([relay.count() for relay in relays]), flush=True)


if __name__ == "__main__":
    main()
