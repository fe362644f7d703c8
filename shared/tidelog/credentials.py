"""Where the database is and who reads it: from Secrets Manager, in the format of RDS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tidelog.errors import InvalidSetting
from tidelog.failures import store_errors

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient


class Credentials(msgspec.Struct, frozen=True):
    """A database and the role that reads it."""

    host: str
    username: str
    password: str
    dbname: str = "postgres"
    port: int = 5432

    def __str__(self) -> str:
        return f"{self.username}@{self.host}:{self.port}/{self.dbname}"

    def __repr__(self) -> str:
        return f"Credentials({self})"


def read_credentials(client: SecretsManagerClient, secret: str) -> Credentials:
    """Read the secret's current version.

    Raises:
        InvalidSetting: it is not a JSON object with host, username and password.
        AccessDenied, StoreUnreachable: it can't be read.
    """
    with store_errors("read", "the database's secret"):
        text = client.get_secret_value(SecretId=secret).get("SecretString", "")
    try:
        return msgspec.json.decode(text, type=Credentials, strict=False)
    except msgspec.DecodeError as error:
        # The error names the field and its type, never the value.
        reason = f"it is not in RDS's format: {error}"
        hint = "Store a JSON object with host, port, dbname, username and password"
        raise InvalidSetting("read", "the database's secret", reason, hint) from None
