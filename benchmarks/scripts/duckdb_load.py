"""DuckDB's reader of PostgreSQL, writing JSON Lines. It runs in an environment of its own.

Arguments: the database's address, the table, the directory to write to, and, for an increment, since when.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

import duckdb


def main() -> None:
    """Write the table, or what has changed."""
    url, table, directory, *since = sys.argv[1:]
    package = files("duckdb_extension_postgres_scanner")
    (extension,) = Path(str(package)).rglob("postgres_scanner.duckdb_extension")
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    connection.execute(f"LOAD '{extension}'")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"ATTACH '{url}' AS pg (TYPE postgres, READ_ONLY)")
    where = f" WHERE last_updated > TIMESTAMPTZ '{since[0]}'" if since else ""
    output = Path(directory) / "rows.jsonl.gz"
    connection.execute(f"COPY (SELECT * FROM pg.public.{table}{where}) TO '{output}' (FORMAT json, COMPRESSION gzip)")


if __name__ == "__main__":
    main()
