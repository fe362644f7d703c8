"""connectorx reading PostgreSQL and polars writing JSON Lines. They run in an environment of their own.

Arguments: the database's address, the table, the directory to write to, and, for an increment, since when.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import polars as pl  # type: ignore[import-not-found]  # it is in the other environment


def main() -> None:
    """Write the table, or what has changed."""
    url, table, directory, *since = sys.argv[1:]
    where = f" WHERE last_updated > '{since[0]}'" if since else ""
    rows = pl.read_database_uri(f"SELECT * FROM {table}{where}", url, engine="connectorx")
    with gzip.open(Path(directory) / "rows.jsonl.gz", "wb", compresslevel=1) as output:
        rows.write_ndjson(output)


if __name__ == "__main__":
    main()
