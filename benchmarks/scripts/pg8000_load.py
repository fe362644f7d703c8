"""What one writes first: all rows of a SELECT by pg8000, each through `json.dumps`.

Arguments: the database's address, the table, the directory to write to, and, for an increment, since when.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pg8000.native


def main() -> None:
    """Write the table, or what has changed."""
    url, table, directory, *since = sys.argv[1:]
    where = urlsplit(url)
    connection = pg8000.native.Connection(
        where.username, host=where.hostname, port=where.port, password=unquote(where.password or "")
    )
    bound = f" WHERE last_updated > '{since[0]}'" if since else ""
    rows = connection.run(f"SELECT * FROM {table}{bound}")
    names = [column["name"] for column in connection.columns]
    with gzip.open(Path(directory) / "rows.jsonl.gz", "wt", compresslevel=1, encoding="utf-8") as output:
        for row in rows:
            output.write(json.dumps(dict(zip(names, row, strict=True)), default=str) + "\n")


if __name__ == "__main__":
    main()
