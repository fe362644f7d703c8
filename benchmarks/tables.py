"""The tables that are read: of 14 columns, with documents and long texts, of 300 columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.setting import report

from tidelog_sandbox.postgres import Postgres

TIMESTAMPS = ("created_at", "last_updated")


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of table. All have an `order_id`, by which they are filled, and the columns of `TIMESTAMPS`.

    Attributes:
        name: of the kind.
        title: what it is, for a person.
        columns: as in CREATE TABLE.
        values: as in SELECT, of the number `g` of the row and the time `at` that it was created.
        share: of the rows of the narrow kind, so that it takes about as long.
    """

    name: str
    title: str
    columns: str
    values: str
    share: float = 1


NARROW = Shape(
    "narrow",
    "14 columns",
    """order_id bigint PRIMARY KEY, created_at timestamptz NOT NULL, last_updated timestamptz NOT NULL,
    design_id integer NOT NULL, staff_id integer NOT NULL, counterparty_id integer NOT NULL,
    units_sold integer NOT NULL, unit_price numeric(10, 2) NOT NULL, currency text NOT NULL,
    agreed_delivery_date date NOT NULL, agreed_payment_date date, paid boolean NOT NULL, attributes jsonb,
    notes text""",
    """g, at, at + g % 7 * interval '1 day', g % 420 + 1, g % 48 + 1, g % 280 + 1, hashint8(g) & 8191,
    (hashint8(g + 1) & 65535) / 100.0, (ARRAY['GBP', 'USD', 'EUR'])[g % 3 + 1], at::date + 5,
    CASE WHEN g % 4 > 0 THEN at::date + 30 END, g % 5 > 0, jsonb_build_object('colour', 'blue', 'size', g % 12),
    CASE WHEN g % 3 = 0 THEN 'deliver to door ' || g || ', ring twice' END""",
)
_LINE = "jsonb_build_object('sku', md5((g + {0})::text), 'quantity', (g + {0}) % 9, 'price', (g % 997 + {0}) / 8.0)"
WIDE = Shape(
    "wide",
    "10 columns with documents and long texts, about 2 kB a row",
    """order_id bigint PRIMARY KEY, created_at timestamptz NOT NULL, last_updated timestamptz NOT NULL,
    reference uuid NOT NULL, status text NOT NULL, amount numeric NOT NULL, payload jsonb NOT NULL, audit jsonb,
    description text NOT NULL, history text""",
    f"""g, at, at + g % 7 * interval '1 day', md5(g::text)::uuid, (ARRAY['open', 'paid', 'sent'])[g % 3 + 1],
    (hashint8(g) & 65535) / 64.0,
    jsonb_build_object('id', g, 'lines', jsonb_build_array({", ".join(_LINE.format(n) for n in range(5))}),
                       'address', jsonb_build_object('street', 'Zürichstraße ' || g % 97, 'zip', g % 99999)),
    CASE WHEN g % 2 = 0 THEN jsonb_build_object('by', 'staff ' || g % 48, 'tags', '["new", "checked"]'::jsonb) END,
    repeat(md5(g::text) || E' said: "as agreed", \\u2014 and so on.\\n', 9),
    CASE WHEN g % 3 > 0 THEN repeat(md5((g + 1)::text) || E'\\tmoved; ', 12) END""",
    share=0.1,
)
_KINDS = (
    ("integer", "hashint8(g + {0})"),
    ("numeric(12, 2)", "(hashint8(g + {0}) & 1048575) / 100.0"),
    ("text", "'value ' || (g + {0}) % 1009"),
    ("timestamptz", "at + {0} * interval '1 minute'"),
    ("boolean", "(g + {0}) % 2 = 0"),
    ("double precision", "(g % 1013 + {0}) / 7.0::float8"),
    ("bigint", "CASE WHEN (g + {0}) % 3 = 0 THEN g * {0} END"),
)
_MANY = [(f"c{n:03}", *_KINDS[n % len(_KINDS)]) for n in range(297)]
BROAD = Shape(
    "broad",
    "300 columns",
    "order_id bigint PRIMARY KEY, created_at timestamptz NOT NULL, last_updated timestamptz NOT NULL, "
    + ", ".join(f"{name} {kind}" for name, kind, _ in _MANY),
    "g, at, at + g % 7 * interval '1 day', "
    + ", ".join(value.format(number) for number, (_, _, value) in enumerate(_MANY)),
    share=0.025,
)
SHAPES = (NARROW, WIDE, BROAD)


def fill(
    server: Postgres,
    name: str,
    rows: int,
    *,
    shape: Shape = NARROW,
    step: float = 31,
    indexed: Sequence[str] = (),
    fillfactor: int = 100,
) -> None:
    """Make a table of so many rows, each created `step` seconds after the one before, with some columns indexed."""
    report(f"filling a table of {rows:,} rows, {shape.title} …")
    indexes = "\n".join(f"CREATE INDEX ON {name} ({column});" for column in indexed)
    server.run(
        f"""
        CREATE TABLE {name} ({shape.columns}) WITH (fillfactor = {fillfactor});
        INSERT INTO {name} SELECT {shape.values}
        FROM (SELECT g, timestamptz '2023-01-02 08:00Z' + g * interval '{step} seconds' AS at
              FROM generate_series(1, {rows}) g);
        VACUUM ANALYZE {name};
        {indexes}
        CHECKPOINT;
        """
    )
