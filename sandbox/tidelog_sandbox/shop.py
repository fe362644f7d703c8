"""The shop: a sample database in the shape of Totesys, a small firm that buys, makes, sells and gets paid.

Eleven tables and some 100,000 rows, made by the server itself and the same every time. The shop's past ends with the
year 2024; `do_business` adds a day of trade at the time of the call.
"""

import random
from pathlib import Path

from pg8000.native import Connection

SALES = 24_000
PURCHASES = 10_000
_STAFF = 48
_DESIGNS = 420
_ADDRESSES = 360
_COUNTERPARTIES = 280

_START = "timestamptz '2023-01-02 08:00Z'"
_NOW = "clock_timestamp()"

_FIRST_NAMES = (
    "Amina, Ben, Chloe, Daniel, Elif, Femi, Grace, Hassan, Isla, Jakub, Keira, Liam, Mei, Noah, Olivia, Priya, "
    "Quentin, Rosa, Sofia, Tariq, Una, Victor, Wanda, Xavier, Yusuf, Zofia"
)
_LAST_NAMES = (
    "Ahmed, Baker, Cohen, Dawson, Evans, Fraser, Garcia, Hughes, Iqbal, Jansen, Khan, Lewis, Murphy, Nowak, Okoro, "
    "Patel, Quinn, Rossi, Singh, Taylor, Usman, Vasquez, Walker, Young, Zhang"
)
_STREETS = "Albion, Bridge, Canal, Elm, Foundry, Granary, Harbour, Kiln, Mill, Orchard, Station, Victoria, Wharf"
_CITIES = (
    "Aberdeen/Scotland, Bilbao/Spain, Boston/United States, Bremen/Germany, Bristol/England, Denver/United States, "
    "Gijón/Spain, Glasgow/Scotland, Leeds/England, Leipzig/Germany, London/England, Lyon/France, Manchester/England, "
    "Nantes/France, Nîmes/France, Norwich/England, Portland/United States, Sevilla/Spain, Sheffield/England"
)
_MATERIALS = "Bronze, Ceramic, Concrete, Cotton, Frozen, Granite, Metal, Plastic, Rubber, Soft, Steel, Wooden"
_THINGS = "Ball, Bench, Bike, Chair, Gloves, Hat, Keyboard, Lamp, Mouse, Pants, Shirt, Shoes, Table, Towels"
_FORMS = "Ltd, plc, LLP, GmbH, Inc, SA, & Sons, Group"


def create(connection: Connection) -> None:
    """Create the tables and fill them, in a database that has none of them, within one transaction."""
    connection.run("BEGIN")
    connection.run("SET LOCAL TimeZone = 'UTC'; SELECT setseed(0.1851)")
    connection.run(Path(__file__).with_name("shop.sql").read_text(encoding="utf-8"))
    _hire(connection, _STAFF, f"{_START} + (g - {_STAFF}) * interval '12 days'")
    _draw(connection, _DESIGNS, f"{_START} + (g - {_DESIGNS}) * interval '40 hours'")
    _move_in(connection, _ADDRESSES, f"{_START} + (g - {_ADDRESSES}) * interval '2 days'")
    _sign(connection, _COUNTERPARTIES, f"{_START} + (g - {_COUNTERPARTIES}) * interval '2 days'")
    _sell(connection, SALES, f"{_START} + (g + random()) * interval '2 years' / {SALES}", "random() < 0.2")
    _buy(connection, PURCHASES, f"{_START} + (g + random()) * interval '2 years' / {PURCHASES}", "random() < 0.1")
    _book(connection)
    for table in ("sales_order", "purchase_order", "transaction", "payment"):
        connection.run(f"CREATE INDEX ON {table} (last_updated); CREATE INDEX ON {table} (created_at)")
    connection.run("COMMIT; ANALYZE")


def do_business(connection: Connection, seed: int) -> dict[str, int]:
    """Do a day of trade, each deed in a transaction of its own, as an application would.

    Args:
        connection: to the shop's database, outside a transaction.
        seed: which day it is; the same one does the same to the same shop.

    Returns:
        For each table that has changed, in the order of their names, the number of rows that are new or updated.
    """
    day = random.Random(seed)  # noqa: S311  # trade is no secret
    connection.run("SELECT setseed(:seed)", seed=day.random())
    changed = {
        "payment": _receive_payments(connection, day.randint(15, 40)),
        "sales_order": _postpone(connection, day, day.randint(5, 15)),
        "design": _rename(connection, day),
        "staff": _hire(connection, 1, _NOW),
    }
    if day.random() < 0.5:  # a new customer, with an address
        changed["address"] = _move_in(connection, 1, _NOW)
        changed["counterparty"] = _sign(connection, 1, _NOW)
    changed["sales_order"] += _sell(connection, day.randint(30, 60), _NOW, "false")
    changed["purchase_order"] = _buy(connection, day.randint(4, 12), _NOW, "false")
    transactions, payments = _book(connection)
    changed["transaction"] = transactions
    changed["payment"] += payments
    return {table: changed[table] for table in sorted(changed) if changed[table]}


def _hire(connection: Connection, number: int, at: str) -> int:
    return _count(
        connection,
        f"""
        INSERT INTO staff (first_name, last_name, department_id, email_address, created_at, last_updated)
        SELECT first, last, 1 + floor(random() * 8), lower(first || '.' || last) || '@totesys.example', at, at
        FROM (SELECT {_one_of(_FIRST_NAMES)} AS first, {_one_of(_LAST_NAMES)} AS last, {at} AS at
              FROM generate_series(1, {number}) g)
        """,
    )


def _draw(connection: Connection, number: int, at: str) -> int:
    return _count(
        connection,
        f"""
        INSERT INTO design (design_name, file_location, file_name, created_at, last_updated)
        SELECT name, '/designs/' || to_char(at, 'YYYY/MM'),
               lower(replace(name, ' ', '-')) || to_char(at, '-YYYYMMDD-') || substr(md5(name || at), 1, 4) || '.json',
               at, at
        FROM (SELECT {_one_of(_MATERIALS)} || ' ' || {_one_of(_THINGS)} AS name, {at} AS at
              FROM generate_series(1, {number}) g)
        """,
    )


def _move_in(connection: Connection, number: int, at: str) -> int:
    return _count(
        connection,
        f"""
        INSERT INTO address (address_line_1, address_line_2, district, city, postal_code, country, phone, created_at,
                             last_updated)
        SELECT 1 + floor(random() * 240) || ' ' || {_one_of(_STREETS)} || ' ' || {_one_of("Street, Road, Lane")},
               CASE WHEN random() < 0.3 THEN 'Unit ' || 1 + floor(random() * 40) END,
               CASE WHEN random() < 0.4 THEN {_one_of("Old Town, Riverside, Northgate, Docks")} END,
               split_part(place, '/', 1), lpad(floor(random() * 100000)::text, 5, '0'), split_part(place, '/', 2),
               '+' || 30 + floor(random() * 20) || ' ' || 100000000 + floor(random() * 899999999), at, at
        FROM (SELECT {_one_of(_CITIES)} AS place, {at} AS at FROM generate_series(1, {number}) g)
        """,
    )


def import_visits(connection: Connection, number: int) -> None:
    """Take over an archive: a table of so many visits of the shop's pages, in one go."""
    connection.run(
        "CREATE TABLE visit (visit_id int PRIMARY KEY, page text, referrer text, seconds int, created_at timestamptz, "
        "last_updated timestamptz)"
    )
    _count(
        connection,
        f"""
        INSERT INTO visit
        SELECT g, '/designs/' || 1 + g % {_DESIGNS} || '?session=' || md5(g::text),
               'https://search.example.com/?q=' || md5((g % 997)::text), g * 7 % 600, at, at
        FROM (SELECT g, {_START} + g * interval '3 min' AS at FROM generate_series(1, {number}) g)
        """,
    )


def _sign(connection: Connection, number: int, at: str) -> int:
    """Take on counterparties; the newest one resides at the newest address."""
    person = f"{_one_of(_FIRST_NAMES)} || ' ' || {_one_of(_LAST_NAMES)}"
    return _count(
        connection,
        f"""
        INSERT INTO counterparty (counterparty_legal_name, legal_address_id, commercial_contact, delivery_contact,
                                  created_at, last_updated)
        SELECT {_one_of(_LAST_NAMES)} || ' ' || {_one_of(_FORMS)}, (SELECT max(address_id) FROM address) - {number} + g,
               {person}, CASE WHEN random() < 0.8 THEN {person} END, at, at
        FROM (SELECT g, {at} AS at FROM generate_series(1, {number}) g)
        """,
    )


def _sell(connection: Connection, number: int, at: str, touched: str) -> int:
    """Take orders of customers; `touched` says which ones were changed later on."""
    return _count(
        connection,
        f"""
        INSERT INTO sales_order (design_id, staff_id, counterparty_id, units_sold, unit_price, currency_id,
                                 agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id, created_at,
                                 last_updated)
        SELECT {_any_row("design")}, {_any_row("staff")}, {_any_row("counterparty")},
               100 + floor(random() * 9900), 2 + random() * 38, {_any_row("currency")},
               at::date + 2 + floor(random() * 10)::int, at::date + 5 + floor(random() * 30)::int,
               {_any_row("address")}, at, CASE WHEN {touched} THEN at + random() * interval '9 days' ELSE at END
        FROM (SELECT {at} AS at FROM generate_series(1, {number}) g)
        """,
    )


def _buy(connection: Connection, number: int, at: str, touched: str) -> int:
    """Order from suppliers; `touched` says which orders were changed later on."""
    return _count(
        connection,
        f"""
        INSERT INTO purchase_order (staff_id, counterparty_id, item_code, item_quantity, item_unit_price, currency_id,
                                    agreed_delivery_date, agreed_payment_date, agreed_delivery_location_id, created_at,
                                    last_updated)
        SELECT {_any_row("staff")}, {_any_row("counterparty")}, upper(substr(md5(random()::text), 1, 7)),
               1 + floor(random() * 1000), 5 + random() * 995, {_any_row("currency")},
               at::date + 3 + floor(random() * 14)::int, at::date + 5 + floor(random() * 40)::int,
               {_any_row("address")}, at, CASE WHEN {touched} THEN at + random() * interval '9 days' ELSE at END
        FROM (SELECT {at} AS at FROM generate_series(1, {number}) g)
        """,
    )


def _book(connection: Connection) -> tuple[int, int]:
    """Make a transaction of every order that has none, and of every transaction without one a payment, due or done."""
    transactions = _count(
        connection,
        """
        INSERT INTO transaction (transaction_type, sales_order_id, purchase_order_id, created_at, last_updated)
        SELECT 'SALE', sales_order_id AS sale, NULL AS purchase, created_at AS made, created_at
        FROM sales_order WHERE sales_order_id NOT IN (SELECT sales_order_id FROM transaction WHERE sales_order_id > 0)
        UNION ALL
        SELECT 'PURCHASE', NULL, purchase_order_id, created_at, created_at
        FROM purchase_order
        WHERE purchase_order_id NOT IN (SELECT purchase_order_id FROM transaction WHERE purchase_order_id > 0)
        ORDER BY made, sale, purchase
        """,
    )
    payments = _count(
        connection,
        """
        INSERT INTO payment (transaction_id, counterparty_id, payment_amount, currency_id, payment_type_id, paid,
                             payment_date, company_ac_number, counterparty_ac_number, created_at, last_updated)
        SELECT transaction_id, counterparty_id, amount, currency_id, CASE kind WHEN 'SALE' THEN 1 ELSE 3 END, paid, due,
               67305075 + currency_id, 10000000 + counterparty_id * 318427, made,
               CASE WHEN paid THEN due + interval '9 hours' ELSE made END
        FROM (
            SELECT transaction_id, transaction_type AS kind, t.created_at AS made,
                   coalesce(s.counterparty_id, p.counterparty_id) AS counterparty_id,
                   coalesce(s.currency_id, p.currency_id) AS currency_id,
                   coalesce(s.units_sold * s.unit_price, p.item_quantity * p.item_unit_price) AS amount,
                   coalesce(s.agreed_payment_date, p.agreed_payment_date) AS due,
                   coalesce(s.agreed_payment_date, p.agreed_payment_date) < '2024-12-01' AS paid
            FROM transaction t LEFT JOIN sales_order s USING (sales_order_id)
                 LEFT JOIN purchase_order p USING (purchase_order_id)
            WHERE transaction_id NOT IN (SELECT transaction_id FROM payment)
        )
        ORDER BY transaction_id
        """,
    )
    return transactions, payments


def _receive_payments(connection: Connection, number: int) -> int:
    return _count(
        connection,
        f"""
        UPDATE payment SET paid = true, last_updated = {_NOW} WHERE payment_id IN
            (SELECT payment_id FROM payment WHERE NOT paid ORDER BY payment_date, payment_id LIMIT {number})
        """,
    )


def _postpone(connection: Connection, day: random.Random, number: int) -> int:
    return _count(
        connection,
        f"""
        UPDATE sales_order
        SET agreed_delivery_date = agreed_delivery_date + {day.randint(1, 7)}, last_updated = {_NOW}
        WHERE sales_order_id = ANY (:orders)
        """,
        orders=day.sample(range(1, SALES + 1), number),
    )


def _rename(connection: Connection, day: random.Random) -> int:
    return _count(
        connection,
        f"UPDATE design SET design_name = design_name || ' II', last_updated = {_NOW} WHERE design_id = :design",
        design=day.randint(1, _DESIGNS),
    )


def _one_of(texts: str) -> str:
    """SQL for one of some texts, which commas separate, chosen anew for each row."""
    return f"('{{{texts}}}'::text[])[1 + floor(random() * {texts.count(',') + 1})]"


def _any_row(table: str) -> str:
    """SQL for the key of some row of a table, chosen anew for each row."""
    keys = f"SELECT array_agg({table}_id ORDER BY {table}_id) FROM {table}"
    return f"({keys})[1 + floor(random() * (SELECT count(*) FROM {table}))]"


def _count(connection: Connection, statement: str, **values: object) -> int:
    connection.run(statement, **values)
    return int(connection.row_count)
