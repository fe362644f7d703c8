"""Every new or changed row of a PostgreSQL database in S3 as JSON Lines, exactly once per row version.

The modules from the outside in:

- use cases: `scheduling` (a tick becomes messages), `ingesting` (a message becomes a run), `extraction` (the steps of a
  run as plain functions), over the parts that `pipeline` builds
- the world: `source` (PostgreSQL, through `connection`), `segment`, `publishing`, `ledger` and `objects` (S3),
  `parameters` (Parameter Store), `queues` (SQS), `credentials` (Secrets Manager); `failures` turns what their drivers
  raise into `errors`
- pure: `messages`, `settings`, `tables`, `selection`, `schema`, `catalog`, `columns`, `stream`, `rows`, `windows`,
  `planning`, `continuity`, `events`, `lake`, `timestamps`, `quoting`
"""

__version__ = "0.1.0"
