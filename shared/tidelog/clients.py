"""AWS's services, each with a client that is made when it is first needed, and made fast."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec
from botocore.config import Config
from botocore.loaders import JSONFileLoader, Loader
from botocore.session import get_session
from isal import isal_zlib

_AWS = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 5})
_GZIP = 31  # zlib's window of 2**15 bytes, and a gzip header
_SERVICES = ["s3", "secretsmanager", "sns", "sqs", "ssm"]
_GIVERS = ["signin", "sso", "sso-oidc", "sts"]
"""What gives credentials where the environment has none, as a function's has: to profiles, for one."""


class Clients:
    """The clients of AWS's services.

    They are botocore's own, as boto3's are: loading boto3 would take half as long again as all the rest.
    """

    def __init__(self) -> None:
        self.session = get_session()
        self.session.register_component("data_loader", _Models(file_loader=_ModelFiles()))
        self._made: dict[str, Any] = {}
        self._making = Lock()  # A session is not for threads; those that send messages may be the first to need SQS.

    def __getitem__(self, service: str) -> Any:
        """Return the client of a service, such as s3."""
        with self._making:
            if service not in self._made:
                self._made[service] = self.session.create_client(service, config=_AWS)
            return self._made[service]

    def later(self, service: str) -> Any:
        """Return what becomes the client of a service when it is first used; most runs never need it."""
        return _Later(self, service)


class _Later:
    def __init__(self, clients: Clients, service: str) -> None:
        self._clients = clients
        self._service = service

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clients[self._service], name)


class _Models(Loader):
    """What botocore knows of the services. It would look through some 400 folders to tell which there are."""

    def list_available_services(self, type_name: str) -> list[str]:  # noqa: ARG002 - there are all types of each
        return _SERVICES + _GIVERS


class _ModelFiles(JSONFileLoader):
    """The files that it is kept in, megabytes of JSON, read in a third of the time that the standard library takes."""

    def load_file(self, file_path: str) -> Any:
        with suppress(FileNotFoundError):
            return msgspec.json.decode(Path(f"{file_path}.json").read_bytes())
        with suppress(FileNotFoundError):
            return msgspec.json.decode(isal_zlib.decompress(Path(f"{file_path}.json.gz").read_bytes(), _GZIP))
        return None
