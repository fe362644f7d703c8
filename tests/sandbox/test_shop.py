"""The demo's shop: the same every time, sound, and honest about what a day of trade changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pg8000.native import Connection

from tests.conftest import CreateDatabase
from tests.tide import connect
from tidelog_sandbox import shop

ROWS = {
    "address": 360,
    "counterparty": 280,
    "currency": 3,
    "department": 8,
    "design": 420,
    "payment": 34_000,
    "payment_type": 4,
    "purchase_order": 10_000,
    "sales_order": 24_000,
    "staff": 48,
    "transaction": 34_000,
}
LARGE = ("payment", "purchase_order", "sales_order", "transaction")


@contextmanager
def opened_shop(create_database: CreateDatabase) -> Iterator[Connection]:
    """Open a new shop in a database of its own."""
    with create_database() as database:
        connection = connect(database.server.credentials(database.name))
        shop.create(connection)
        yield connection
        connection.close()


@pytest.fixture(scope="module")
def connection(create_database: CreateDatabase) -> Iterator[Connection]:
    """A shop on the day that it opens its doors to the tests."""
    with opened_shop(create_database) as connection:
        yield connection


def numbers(connection: Connection, query: str) -> dict[str, int]:
    """The one number that a query with {table} in it gives, for each table."""
    return {table: connection.run(query.format(table=table))[0][0] for table in ROWS}


def contents(connection: Connection) -> dict[str, str]:
    """A checksum of each table."""
    query = "SELECT md5(string_agg(r::text, '' ORDER BY r::text)) FROM {table} r"
    return {table: connection.run(query.format(table=table))[0][0] for table in ROWS}


def test_the_shop_has_eleven_tables_and_some_hundred_thousand_rows(connection: Connection) -> None:
    """The tables are the ones that the list above names, with as many rows."""
    tables = connection.run(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )

    assert sorted(name for (name,) in tables) == sorted(ROWS)
    assert numbers(connection, "SELECT count(*) FROM {table}") == ROWS
    assert 100_000 <= sum(ROWS.values()) <= 110_000


def test_every_table_is_stamped_and_the_large_ones_have_indexes_on_the_stamps(connection: Connection) -> None:
    """created_at and last_updated are never null; nothing was updated before it was made, or lies in the future."""
    columns = connection.run(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        " AND column_name IN ('created_at', 'last_updated') AND is_nullable = 'NO'"
    )
    indexed = connection.run(
        "SELECT tablename, substring(indexdef FROM '\\((\\w+)\\)$') FROM pg_indexes WHERE schemaname = 'public'"
        " AND indexdef ~ '\\((created_at|last_updated)\\)$'"
    )
    wrong = "SELECT count(*) FROM {table} WHERE last_updated < created_at OR last_updated > now()"

    assert {tuple(c) for c in columns} == {(t, c) for t in ROWS for c in ("created_at", "last_updated")}
    assert {tuple(i) for i in indexed} == {(t, c) for t in LARGE for c in ("created_at", "last_updated")}
    assert not any(numbers(connection, wrong).values())


def test_the_server_has_checked_every_foreign_key(connection: Connection) -> None:
    """Every reference between tables is declared and valid, and every order has its transaction and its payment."""
    keys = connection.run(
        "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint"
        " WHERE contype = 'f' AND convalidated"
    )
    unbooked = connection.run(
        "SELECT count(*) FROM sales_order FULL JOIN transaction USING (sales_order_id) "
        "FULL JOIN purchase_order USING (purchase_order_id) FULL JOIN payment USING (transaction_id) "
        "WHERE payment_id IS NULL OR num_nonnulls(sales_order_id, purchase_order_id) <> 1"
    )

    assert len(keys) == 17
    assert {child for child, _ in keys} == {"counterparty", "staff", *LARGE}
    assert unbooked == [[0]]


def test_the_shop_and_its_trade_are_the_same_every_time(
    create_database: CreateDatabase, connection: Connection
) -> None:
    """Two shops hold the same rows, and the same seed changes as many of them."""
    with opened_shop(create_database) as twin:
        connection.run("BEGIN")
        assert contents(twin) == contents(connection)
        assert shop.do_business(twin, 5) == shop.do_business(connection, 5)
        connection.run("ROLLBACK")


def test_a_day_of_trade_changes_exactly_what_it_says(connection: Connection) -> None:
    """Counted by the row versions themselves; each of them is stamped with the time of the trade."""
    customers = set()
    for seed in range(6):
        (started, horizon), *_ = connection.run("SELECT clock_timestamp(), pg_current_xact_id()::text::bigint")

        changed = shop.do_business(connection, seed)

        new = numbers(connection, f"SELECT count(*) FROM {{table}} WHERE xmin::text::bigint > {horizon}")
        stamped = numbers(
            connection, f"SELECT count(*) FROM {{table}} WHERE last_updated >= '{started}'::timestamptz(3)"
        )
        assert changed == {table: count for table, count in new.items() if count}
        assert stamped == new
        assert list(changed) == sorted(changed)
        assert changed["staff"] == changed["design"] == 1
        assert not changed.keys() & {"currency", "department", "payment_type"}
        customers.add("counterparty" in changed)
    assert customers == {True, False}
