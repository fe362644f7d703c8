"""The connection's own way of reading a COPY: many rows at a time, and every one of them."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from pg8000.exceptions import DatabaseError
from pg8000.native import Connection

from tests.tide import LOCK_SECONDS, Database
from tidelog.connection import connect

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
    """Rows end anywhere in the driver's buffer of 8 KiB, some are longer than it, and the server talks in between."""
    database.run(TALK)
    lengths = [*range(400), *range(8150, 8230), *range(0, 50_000, 997), *([0] * 3000), 2**20, 3]
    taken = io.BytesIO()

    connection.execute_unnamed(
        "COPY (SELECT repeat(chr(97 + (n % 26)::int), length) FROM "
        f"unnest(ARRAY{lengths}) WITH ORDINALITY AS row (length, n) WHERE public.talk(n::int) = n) TO STDOUT",
        stream=taken,
    )

    assert taken.getvalue() == b"".join(
        bytes([97 + n % 26]) * length + b"\n" for n, length in enumerate(lengths, start=1)
    )
    assert len(connection.notices) > 0
    assert connection.run("SELECT 1") == [[1]]


def test_an_error_among_the_rows_is_raised_and_leaves_the_connection_usable(connection: Connection) -> None:
    """What came before it was handed over; the next statement has its own answer."""
    taken = io.BytesIO()

    with pytest.raises(DatabaseError, match="22012"):
        connection.execute_unnamed(
            "COPY (SELECT 1 / (5000 - n) FROM generate_series(1, 9000) n) TO STDOUT", stream=taken
        )

    assert taken.getvalue().count(b"\n") == 4999
    assert connection.run("SELECT 2") == [[2]]
