"""Every new or changed row of a PostgreSQL database in S3 as JSON Lines, exactly once per row version.

The modules from the outside in:

- use cases: `scheduling` (a tick becomes messages), `ingesting` (a message becomes a run), `extraction` (the steps of a
  run as plain functions)
- the world: `source` (PostgreSQL, asked by `catalog`), `segment`, `ledger` and `publishing` (S3), `parameters`
  (Parameter Store), `queues` (SQS), `credentials` (Secrets Manager)
- pure: `messages`, `tables`, `selection`, `columns`, `schema`, `windows`, `planning`, `continuity`, `events`,
  `lake`, `timestamps`, `quoting`, `settings`, `errors`
"""

__version__ = "0.1.0"
