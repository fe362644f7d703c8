"""chdb's reader of PostgreSQL, which is ClickHouse's, writing JSON Lines. It runs in an environment of its own.

Arguments: the database's address, the table, the directory to write to, and, for an increment, since when.
"""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import chdb  # type: ignore[import-not-found]  # it is in the other environment


def main() -> None:
    """Write the table, or what has changed."""
    url, table, directory, *since = sys.argv[1:]
    where = urlsplit(url)
    password = unquote(where.password or "")
    source = f"postgresql('{where.hostname}:{where.port}', 'postgres', '{table}', '{where.username}', '{password}')"
    bound = f" WHERE last_updated > parseDateTime64BestEffort('{since[0]}', 6, 'UTC')" if since else ""
    output = Path(directory) / "rows.jsonl.gz"
    chdb.query(
        f"SELECT * FROM {source}{bound} INTO OUTFILE '{output}' COMPRESSION 'gzip' LEVEL 1 FORMAT JSONEachRow "
        "SETTINGS output_format_json_quote_64bit_integers = 0, output_format_json_quote_decimals = 0"
    )


if __name__ == "__main__":
    main()
