"""The secret of a database."""

from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from tidelog_sandbox.errors import SandboxError


def secret_content(database: str | Mapping[str, object]) -> dict[str, object]:
    """A database's secret, in the format of RDS, from a connection string or from the secret itself.

    Raises:
        SandboxError: the text is no connection string with host, user and database.
    """
    if not isinstance(database, str):
        return dict(database)
    parts = urlsplit(database)
    if parts.scheme not in ("postgresql", "postgres") or not (
        parts.hostname and parts.username and parts.path.strip("/")
    ):
        raise SandboxError("read the database's address: it is not postgresql://user:password@host:port/database")
    return {
        "engine": "postgres",
        "host": parts.hostname,
        "port": parts.port or 5432,
        "dbname": unquote(parts.path.strip("/")),
        "username": unquote(parts.username),
        "password": unquote(parts.password or ""),
    }
