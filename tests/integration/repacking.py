"""pg_repack, as far as rows, transaction ids and files go: a copy, what is written meanwhile, and the exchange of both.

The extension is not there in each PostgreSQL that tests run on. As it does, this copies a relation under an id of its
own while a trigger notes what others write and a lock keeps it from being altered, brings the copy up to date under
other ids, and exchanges the files; the relation keeps its oid. https://reorg.github.io/pg_repack/
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pg8000.exceptions import DatabaseError, InterfaceError

from tests.tide import connect

if TYPE_CHECKING:
    import pg8000.native

    from tidelog.credentials import Credentials

# The file of a copy has no place for a column that was dropped.
WATCH = (
    "BEGIN",
    "SELECT 1 / (count(*) = 0)::int FROM pg_attribute WHERE attrelid = '{relation}'::regclass AND attisdropped",
    "CREATE TABLE repacked_log (id int)",
    """
    CREATE FUNCTION repacked_log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      INSERT INTO repacked_log VALUES (CASE WHEN TG_OP = 'DELETE' THEN OLD.id ELSE NEW.id END);
      RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER repacked_log AFTER INSERT OR UPDATE OR DELETE ON {relation}
      FOR EACH ROW EXECUTE FUNCTION repacked_log()
    """,
    "COMMIT",
)
COPY = (
    "BEGIN",
    "CREATE TABLE repacked (LIKE {relation} INCLUDING GENERATED)",
    "INSERT INTO repacked ({columns}) SELECT {columns} FROM {relation}",
)
CATCH_UP = (
    "CREATE TEMP TABLE now (id int) ON COMMIT DROP",
    "WITH noted AS (DELETE FROM repacked_log RETURNING id) INSERT INTO now SELECT DISTINCT id FROM noted",
    "DELETE FROM repacked USING now WHERE now.id = repacked.id",
    "INSERT INTO repacked ({columns}) SELECT {columns} FROM {relation} WHERE id IN (SELECT id FROM now)",
)
EXCHANGE = (
    "SET LOCAL allow_system_table_mods = on",
    """
    DO $$ DECLARE ours oid := pg_relation_filenode('{relation}'); theirs oid := pg_relation_filenode('repacked'); BEGIN
      UPDATE pg_class SET relfilenode = theirs WHERE oid = '{relation}'::regclass;
      UPDATE pg_class SET relfilenode = ours WHERE oid = 'repacked'::regclass;
    END $$
    """,
    "REINDEX TABLE {relation}",
    "DROP TRIGGER repacked_log ON {relation}",
    "DROP TABLE repacked, repacked_log",
    "DROP FUNCTION repacked_log",
    "COMMIT",
)
CLEAN = ("DROP TABLE IF EXISTS repacked, repacked_log", "DROP FUNCTION IF EXISTS repacked_log CASCADE")
COLUMNS = (
    "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute "
    "WHERE attrelid = '{relation}'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
)


class Repacking:
    """One relation that is repacked, a step at a time.

    Args:
        to: the superuser of the database.
        relation: the relation; has a key `id`, and text that is short.

    Raises:
        DatabaseError: somebody writes to it or alters it just now, or a column was dropped.
    """

    def __init__(self, to: Credentials, relation: str) -> None:
        self._session: pg8000.native.Connection = connect(to)
        self._guard: pg8000.native.Connection = connect(to)
        self._relation = relation
        self._columns = ""
        try:
            self._run("SET lock_timeout = '20ms'", *CLEAN, *WATCH)
            [[self._columns]] = self._session.run(COLUMNS.format(relation=relation))
            self._run(*COPY)
            self._hold()
        except DatabaseError:
            self.give_up()
            raise

    def copied(self) -> None:
        """End the transaction that copies."""
        self._run("COMMIT")

    def catch_up(self) -> None:
        """Bring the copy up to date."""
        self._run("BEGIN", *CATCH_UP, "COMMIT")

    def exchange(self) -> None:
        """Bring the copy up to date and have the relation use its file.

        Raises:
            DatabaseError: somebody holds the relation; it can be tried again.
        """
        self._guard.run("COMMIT")
        try:
            self._run("BEGIN", "LOCK TABLE {relation} IN ACCESS EXCLUSIVE MODE", *CATCH_UP, *EXCHANGE)
        except DatabaseError:
            self._run("ROLLBACK")
            self._hold()
            raise
        self._session.close()
        self._guard.close()

    def give_up(self) -> None:
        """Leave all as it was; if somebody holds the relation, the trigger stays for the next one to remove."""
        with suppress(DatabaseError, InterfaceError, OSError):
            self._guard.run("ROLLBACK")
            self._run("ROLLBACK", *CLEAN)
        for session in (self._session, self._guard):
            with suppress(InterfaceError, OSError):
                session.close()

    def _hold(self) -> None:
        """Let nobody alter it."""
        self._guard.run(f"BEGIN; LOCK TABLE {self._relation} IN ACCESS SHARE MODE")

    def _run(self, *statements: str) -> None:
        for statement in statements:
            self._session.run(statement.format(relation=self._relation, columns=self._columns))
