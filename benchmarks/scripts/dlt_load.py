"""dlt: one run of a pipeline that writes files of JSON Lines. It runs in an environment of its own.

Arguments: the database's address, the table, the directory to write to, dlt's backend, and, for an increment, since
when.
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

import dlt  # type: ignore[import-not-found]  # it is in the other environment
from dlt.sources.sql_database import sql_table  # type: ignore[import-not-found]  # as is this


def main() -> None:
    """Write the table, or what has changed."""
    url, table, directory, backend, *since = sys.argv[1:]
    destination = dlt.destinations.filesystem(bucket_url=(Path(directory) / "lake").as_uri())
    pipeline = dlt.pipeline(
        "load", pipelines_dir=str(Path(directory) / "state"), destination=destination, dataset_name="public"
    )
    changed = dlt.sources.incremental("last_updated", initial_value=datetime.fromisoformat(since[0])) if since else None
    rows = sql_table(
        credentials=url.replace("://", "+psycopg2://"),
        table=table,
        schema="public",
        backend=backend,
        backend_kwargs={"conn": url} if backend == "connectorx" else {},
        incremental=changed,
    )
    pipeline.run(rows, write_disposition="append", loader_file_format="jsonl").raise_on_failed_jobs()


if __name__ == "__main__":
    main()
