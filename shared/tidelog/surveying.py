"""What would be ingested of a database and how, what not, and why: its catalog is asked, no row is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace
from pg8000.native import Connection

from tidelog import catalog
from tidelog.advice import Advice, index_advice, remarks_of
from tidelog.columns import remarks
from tidelog.configuration import Configuration
from tidelog.connection import connect
from tidelog.credentials import Credentials
from tidelog.errors import InvalidSetting, Permanent
from tidelog.failures import database_errors
from tidelog.horizon import Horizon
from tidelog.limits import Limits
from tidelog.planning import first_chunks
from tidelog.refusals import read_lacks
from tidelog.selection import Left, Selection, meets
from tidelog.tables import Relation, Table, TableName
from tidelog.tablesettings import configured
from tidelog.windows import Strategy, choose_strategy

OLDEST = 14
"""The oldest version of PostgreSQL that can be read."""
_LOCK_SECONDS = 10.0

_SERVER = """
SELECT json_build_object('version', current_setting('server_version'),
                         'number', current_setting('server_version_num')::int / 10000,
                         'standby', pg_is_in_recovery(), 'database', current_database(), 'role', current_user)::text
"""


class Server(msgspec.Struct, frozen=True):
    """The server that answered, and who asked."""

    version: str
    number: int
    """Its major version."""
    standby: bool
    database: str
    role: str


class Surveyed(msgspec.Struct, frozen=True):
    """A table that is to be ingested.

    Attributes:
        table: its name.
        obstacles: why it can't be ingested as things stand; none where it can.
        found: what the catalog says of it, as it is configured; None where that could not be made out.
        strategy: how new rows are found.
        chunks: in how many chunks it is read first; 0 where one run does it.
        advice: an index that would help; None where none is needed.
        remarks: what there is to know.
        types: what readers have to know of columns, with the columns.
    """

    table: TableName
    obstacles: tuple[Advice, ...] = ()
    found: Table | None = None
    strategy: Strategy | None = None
    chunks: int = 0
    advice: Advice | None = None
    remarks: tuple[str, ...] = ()
    types: tuple[tuple[str, tuple[str, ...]], ...] = ()


class Survey(msgspec.Struct, frozen=True):
    """What was found.

    Attributes:
        server: the server.
        horizon: who holds it.
        tables: those that are to be ingested.
        left: relations that are left out, and why.
        refused: tables asked for or configured by name that are not there, or can't be ingested.
    """

    server: Server
    horizon: Horizon
    tables: tuple[Surveyed, ...]
    left: tuple[Left, ...]
    refused: tuple[Left, ...]

    @property
    def complete(self) -> bool:
        """Whether all that is asked for can be ingested."""
        return not self.refused and not any(each.obstacles for each in self.tables)


def survey(
    credentials: Credentials,
    tls: str,
    *,
    selection: Selection,
    configuration: Configuration,
    limits: Limits,
    progress: Callable[[int, int, str], object] = lambda *_: None,
) -> Survey:
    """Look at a database as the functions would.

    Args:
        credentials: the database and the role.
        tls: "verify-full", "require" or "disable".
        selection: which tables are taken, where the configuration does not say.
        configuration: what else is configured.
        limits: what an operator has set for all tables.
        progress: is told how many tables are done, of how many, and which is next.

    Raises:
        DatabaseUnreachable, DatabaseBusy, AccessDenied: as they say.
        InvalidSetting: the server is too old.
    """
    with database_errors("look at", credentials):
        connection = connect(credentials, tls, _LOCK_SECONDS)
        try:
            return _survey(connection, configuration.selection(selection), configuration, limits, progress)
        finally:
            connection.close()


def _survey(
    connection: Connection,
    selection: Selection,
    configuration: Configuration,
    limits: Limits,
    progress: Callable[[int, int, str], object],
) -> Survey:
    server = msgspec.json.decode(_one(connection, _SERVER), type=Server)
    if server.number < OLDEST:
        reason, hint = f"it is PostgreSQL {server.version}", f"Read PostgreSQL {OLDEST} or newer"
        raise InvalidSetting("look at", server.database, reason, hint)
    horizon = msgspec.json.decode(_one(connection, catalog.horizon_query()), type=Horizon)
    relations = catalog.read_relations(_one(connection, catalog.relations_query()))
    selected = selection.apply(relations)
    tables = []
    for number, table in enumerate(selected.tables):
        progress(number, len(selected.tables), str(table))
        tables.append(_look_at(connection, table, server, configuration, limits))
    return Survey(
        server,
        horizon,
        tuple(tables),
        (*selected.skipped, *_not_taken(relations, selection)),
        (*selected.refused, *configuration.unmet(relations)),
    )


def _look_at(
    connection: Connection, table: TableName, server: Server, configuration: Configuration, limits: Limits
) -> Surveyed:
    """Return what would become of a table: what a worker would raise stands among its obstacles."""
    settings = configuration.table(table)
    limits = limits.of(settings)
    try:
        found = configured(catalog.read_table(table, connection.run(catalog.table_query(table))), settings)
    except Permanent as error:
        return Surveyed(table, (Advice(f"{error.reason}. {error.hint}"),))
    surveyed = Surveyed(table, read_lacks(connection, found, server.role, standby=server.standby), found)
    try:
        strategy = choose_strategy(found, time_bound_bytes=limits.time_bound_bytes, settings=settings)
    except InvalidSetting as error:
        return replace(surveyed, obstacles=(*surveyed.obstacles, Advice(f"{error.reason}. {error.hint}")))
    return replace(
        surveyed,
        strategy=strategy,
        chunks=first_chunks(found, limits.chunk_bytes),
        advice=None if settings.strategy == "xmin" else index_advice(found, strategy, limits.time_bound_bytes),
        remarks=remarks_of(found, strategy, limits.time_bound_bytes),
        types=tuple(remarks(found).items()),
    )


def _not_taken(relations: Sequence[Relation], selection: Selection) -> list[Left]:
    """Return the tables that could be ingested and that the selection leaves out."""
    left = []
    for relation in relations:
        name = str(relation.table_name)
        if relation.obstacle:
            continue
        if meets(name, selection.exclude):
            left.append(Left(name, "excluded"))
        elif not meets(name, selection.include):
            left.append(Left(name, "not included"))
    return left


def _one(connection: Connection, statement: str) -> str:
    answer: str = connection.run(statement)[0][0]
    return answer
