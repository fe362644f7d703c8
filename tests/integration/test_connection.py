"""The connection's own way of reading a COPY: many rows at a time, and every one of them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from pg8000.exceptions import DatabaseError, InterfaceError
from pg8000.native import Connection

from tests.tide import LOCK_SECONDS, Database
from tidelog.columns import COPY_FORMAT
from tidelog.connection import connect
from tidelog.quoting import literal
from tidelog.stream import Rows

TALK = """
CREATE FUNCTION talk(n int) RETURNS int LANGUAGE plpgsql AS
$$ BEGIN IF n % 50 = 0 THEN RAISE NOTICE 'at row %', n; END IF; RETURN n; END $$
"""


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """The connection that tables are read through."""
    connection = connect(database.server.credentials(database.name), "disable", LOCK_SECONDS)
    yield connection
    connection.close()


def test_rows_of_every_length_arrive_whole_and_in_order(connection: Connection, database: Database) -> None:
    """Rows end anywhere in the driver's buffer, some are longer than it, and the server talks in between."""
    database.run(TALK)
    odd = [0x0A6400 - 5, 0, 0x0A64 - 5, 0x0A - 5, 0x0A0A - 5]  # Their lengths look like the end of a row.
    lengths = [*range(400), *range(8150, 8230), *range(0, 50_000, 997), *([0] * 3000), 2**20, 3, *(odd * 9)]
    taken = io.BytesIO()
    rows = Rows(taken)

    connection.execute_unnamed(
        "COPY (SELECT repeat(chr(97 + (n % 26)::int), length) FROM "
        f"unnest(ARRAY{lengths}) WITH ORDINALITY AS row (length, n) WHERE public.talk(n::int) = n) TO STDOUT",
        stream=rows,
    )

    assert taken.getvalue() == b"".join(
        bytes([97 + n % 26]) * length + b"\n" for n, length in enumerate(lengths, start=1)
    )
    assert len(connection.notices) > 0
    assert connection.run("SELECT 1") == [[1]]


def test_an_error_among_the_rows_is_raised_and_leaves_the_connection_usable(connection: Connection) -> None:
    """What came before it was handed over; the next statement has its own answer."""
    taken = io.BytesIO()
    rows = Rows(taken)

    with pytest.raises(DatabaseError, match="22012"):
        connection.execute_unnamed(
            "COPY (SELECT 1 / (5000 - n) FROM generate_series(1, 9000) n) TO STDOUT", stream=rows
        )

    assert taken.getvalue().count(b"\n") == 4999
    assert connection.run("SELECT 2") == [[2]]


@pytest.mark.parametrize("tabs", [False, True])
def test_values_get_their_headings_and_backslashes_and_tabs_come_back(connection: Connection, *, tabs: bool) -> None:
    """With headings that have backslashes too, for rows by the buffer, be they few or many, as for single ones."""
    taken, slash = io.BytesIO(), "\\"
    first, second = f'{{"a{slash * 2}t{slash}":', f',"{slash}{slash}":'
    rows = Rows(taken, (first.encode(), second.encode()), tabs=tabs)
    texts = [f"{slash}t", f"{slash * 2}t", f"{slash}u0041{slash * 2}", "", slash * 18, "d", "null", "long" * 2000]
    texts += ["\t", f"{slash}\t"] if tabs else []

    connection.execute_unnamed(
        f"COPY (SELECT t, n FROM unnest(ARRAY[{', '.join(map(literal, texts))}]) t, generate_series(1, 5000) n) "
        f"TO STDOUT WITH {COPY_FORMAT}",
        stream=rows,
    )

    lines = [f"{first}{text}{second}{n}}}\n".encode() for text in texts for n in range(1, 5001)]
    assert Counter(taken.getvalue().splitlines(keepends=True)) == Counter(lines)
    assert rows.count == len(lines)


def test_of_a_connection_that_failed_no_socket_is_left_open(database: Database, role: str) -> None:
    """At once, although the error is held: a warm function would gather them."""
    role_of = database.server.credentials(database.name, role)
    errors: list[Exception] = []
    open_files = Path("/proc/self/fd")
    before = len([*open_files.iterdir()])
    for credentials in (msgspec.structs.replace(role_of, password="wrong"), role_of):
        try:
            with closing(connect(credentials, "disable", LOCK_SECONDS)) as connection:
                database.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")
                connection.run("SELECT 1")
        except (DatabaseError, InterfaceError, OSError) as error:
            errors.append(error)
    assert (len(errors), len([*open_files.iterdir()])) == (2, before)


def test_a_session_can_only_read_whatever_its_role_may_do(connection: Connection, database: Database) -> None:
    """Even a superuser's, within a transaction and without."""
    database.run("CREATE TABLE t (id int)")
    for statement in ("CREATE TABLE u (id int)", "INSERT INTO public.t VALUES (1)", "BEGIN; DELETE FROM public.t"):
        with pytest.raises(DatabaseError, match="25006"):
            connection.run(statement)
        connection.run("ROLLBACK")
    assert connection.run("SELECT pg_current_xact_id()::text")  # all that it has to do to have the log written


def test_how_much_money_is_a_fraction_is_left_to_the_database(database: Database) -> None:
    """Its `lc_monetary` alone says how many of the digits of what is stored are."""
    database.run(f"ALTER DATABASE \"{database.name}\" SET lc_monetary = 'C.UTF-8'")
    with closing(connect(database.server.credentials(database.name), "disable", LOCK_SECONDS)) as connection:
        assert connection.run("SHOW lc_monetary") == [["C.UTF-8"]]
