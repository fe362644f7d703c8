"""Where the database is and who reads it: from Secrets Manager, in the format of RDS."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec
from botocore.model import ServiceId
from botocore.signers import RequestSigner

from tidelog.errors import AccessDenied, InvalidSetting
from tidelog.failures import store_errors

if TYPE_CHECKING:
    from botocore.session import Session
    from mypy_boto3_secretsmanager import SecretsManagerClient


class Credentials(msgspec.Struct, frozen=True):
    """A database and the role that reads it."""

    host: str
    username: str
    password: str = ""
    dbname: str = "postgres"
    port: int = 5432
    ca: str = ""
    """Certificates (PEM) of the authorities that may sign the server's; if empty RDS's and the public ones."""
    passing: bool = False
    """The password holds for minutes only: it is asked for anew with each connection."""

    def __str__(self) -> str:
        return f"{self.username}@{self.host}:{self.port}/{self.dbname}"

    def __repr__(self) -> str:
        return f"Credentials({self})"


class DatabaseSecret:
    """The secret of a database. Each call returns what to connect with.

    While a secret is rotated the database may know the new password before the secret's current version does. So who
    calls again, as what was given was refused, gets the version that is pending if the current one is still the same.
    """

    def __init__(self, client: SecretsManagerClient, secret: str, token: Token | None = None) -> None:
        """Have a secret read.

        Args:
            client: of Secrets Manager.
            secret: ARN or name.
            token: makes a password from what the secret says, which needs none then: the role is known by IAM.
        """
        self._client = client
        self._secret = secret
        self._token = token
        self._last: Credentials | None = None

    def __call__(self) -> Credentials:
        """Read it.

        Raises:
            InvalidSetting: it is not a JSON object with host, username and password.
            AccessDenied, StoreUnreachable: it can't be read.
        """
        found = read_credentials(self._client, self._secret, needs_password=self._token is None)
        if self._token:
            return msgspec.structs.replace(found, password=self._token(found), passing=True)
        if found == self._last:
            found = self._pending() or found
        self._last = found
        return found

    def _pending(self) -> Credentials | None:
        """Return the version that a rotation is about to make the current one, if there is one that is complete."""
        try:
            return read_credentials(self._client, self._secret, stage="AWSPENDING")
        except (AccessDenied, InvalidSetting):
            return None


Token = Callable[[Credentials], str]


def iam_token(session: Session) -> Token:
    """Return what signs in to RDS as a role of IAM: a token for 15 minutes, made without a call.

    Source: RDS documentation, "IAM database authentication"; it is what `aws rds generate-db-auth-token` prints.
    """
    region, events = session.get_config_variable("region"), session.get_component("event_emitter")

    def sign(to: Credentials) -> str:
        identity = session.get_credentials()
        if identity is None:
            hint = "Set AWS_PROFILE, or run aws configure"
            raise AccessDenied("sign in to", to, "there are no credentials of AWS", hint)
        signer = RequestSigner(ServiceId("rds-db"), region, "rds-db", "v4", identity, events)
        asked = {
            "url": f"https://{to.host}:{to.port}/?{urlencode({'Action': 'connect', 'DBUser': to.username})}",
            "method": "GET",
            "headers": {},
            "body": {},
            "context": {},
        }
        url: str = signer.generate_presigned_url(asked, "connect", region_name=region, expires_in=900)
        return url.removeprefix("https://")

    return sign


def read_credentials(
    client: SecretsManagerClient, secret: str, *, stage: str = "AWSCURRENT", needs_password: bool = True
) -> Credentials:
    """Read a version of a secret.

    Raises:
        InvalidSetting: it is not a JSON object with host, username and password.
        AccessDenied, StoreUnreachable: it can't be read.
    """
    with store_errors("read", "the database's secret"):
        text = client.get_secret_value(SecretId=secret, VersionStage=stage).get("SecretString", "")
    try:
        found = msgspec.json.decode(text, type=Credentials, strict=False)
    except msgspec.DecodeError as error:
        # The error names the field and its type, never the value.
        raise _unusable(f"it is not in RDS's format: {error}") from None
    if needs_password and "password" not in msgspec.json.decode(text):
        raise _unusable("it is not in RDS's format: it has no `password`")
    return found


def _unusable(reason: str) -> InvalidSetting:
    hint = "Store a JSON object with host, port, dbname, username and password"
    return InvalidSetting("read", "the database's secret", reason, hint)
