"""The versions of the configuration document, in Parameter Store, and which of them is in force in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from botocore.exceptions import ClientError

from tidelog.configuration import Configuration
from tidelog.failures import error_code, store_errors
from tidelog.tables import TableName
from tidelog.tablesettings import TableSettings

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient


class Document(msgspec.Struct, frozen=True):
    """A version of the document, as it is written."""

    text: str
    version: int

    def read(self) -> Configuration:
        """Return what it says.

        Raises:
            InvalidSetting: it can't be used.
        """
        subject = f"version {self.version} of the configuration"
        return Configuration.parse(self.text, version=self.version, subject=subject)


class Configurations:
    """The document at `<prefix>/configuration`. Nothing is configured until `follow` is called."""

    def __init__(self, ssm: SSMClient, prefix: str) -> None:
        self._ssm = ssm
        self._name = f"{prefix}/configuration"
        self._current = Configuration()

    def table(self, name: TableName) -> TableSettings:
        """Return what the version in force says of a table."""
        return self._current.table(name)

    def follow(self, version: int | None = None) -> Configuration:
        """Put a version in force, which is asked for only if another one is.

        Args:
            version: the version, where it is not behind the one in force; the latest in place of one that is or that
                Parameter Store no longer has. None is the latest, 0 that there was none.

        Raises:
            InvalidSetting: it can't be used. The one before stays in force.
            AccessDenied, StoreUnreachable: as they say.
        """
        if version is None or version != self._current.version:
            named = version if version and version > self._current.version else None
            document = self.read(named) or (self.read() if named else None)
            self._current = document.read() if document else Configuration()
        return self._current

    def read(self, version: int | None = None) -> Document | None:
        """Return a version of the document, or the latest; None where there is none.

        Raises:
            AccessDenied, StoreUnreachable: as they say.
        """
        name = f"{self._name}:{version}" if version else self._name
        with store_errors("read", "the configuration"):
            try:
                found = self._ssm.get_parameter(Name=name)["Parameter"]
            except ClientError as error:
                if error_code(error) not in ("ParameterNotFound", "ParameterVersionNotFound"):
                    raise
                return None
        return Document(found["Value"], found["Version"])

    def write(self, text: str) -> int:
        """Write the document; return its version.

        Raises:
            InvalidSetting: it can't be used.
            AccessDenied, StoreUnreachable: as they say.
        """
        Configuration.parse(text)
        with store_errors("write", "the configuration"):
            return self._ssm.put_parameter(
                Name=self._name,
                Value=text if text.strip() else "# nothing is configured\n",  # an empty value is none
                Type="String",
                Tier="Intelligent-Tiering",
                Overwrite=True,
            )["Version"]
