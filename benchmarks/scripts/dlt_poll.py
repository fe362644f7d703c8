"""dlt, polling: each line on standard input is one run of its pipeline, which appends to files of JSON Lines.

It runs in an environment of its own, where dlt is, and imports nothing of this project. It is what dlt's documentation
has for a table with a column that tells of changes: `sql_table` with `incremental` and `write_disposition="merge"`. The
table's primary key is found by dlt. Files of JSON Lines can't be merged into, so that dlt appends, and says so.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import dlt  # type: ignore[import-not-found]  # it is in the other environment
from dlt.sources.sql_database import sql_table  # type: ignore[import-not-found]  # as is this


def main() -> None:
    """Poll whenever told to. Arguments: where to keep all files, the table, the lag in seconds (0 for none)."""
    directory, table, lag = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    destination = dlt.destinations.filesystem(bucket_url=(directory / "lake").as_uri())
    pipeline = dlt.pipeline(
        "peers", pipelines_dir=str(directory / "state"), destination=destination, dataset_name="public"
    )
    print("ready", flush=True)
    for _ in sys.stdin:
        updated = dlt.sources.incremental("updated_at", initial_value=datetime(2020, 1, 1, tzinfo=UTC), lag=lag or None)
        # The database is given by the environment, as dlt has it.
        rows = sql_table(table=table, schema="public", incremental=updated)
        pipeline.run(rows, write_disposition="merge", loader_file_format="jsonl").raise_on_failed_jobs()
        print("polled", flush=True)


if __name__ == "__main__":
    main()
