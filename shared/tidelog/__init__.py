"""Every new or changed row of a PostgreSQL database in S3 as JSON Lines, exactly once per row version.

The modules from the outside in:

- use cases: `scheduling` (a tick becomes messages), `watching` (is all well?), `requesting` (a backfill is checked and
  sent), `working` (a message is worked off, tried again or buried), `ingesting` (a run of a table), `backfilling` (a
  backfill is planned), `chunking` (a chunk of a plan is read), `extraction` (the steps of a run as plain functions),
  over the `parts` that `pipeline` builds
- the world: `source` (PostgreSQL, through `connection` and `opening`), `segment`, `publishing`, `ledger` and `objects`
  (S3), `parameters` and `marks` (Parameter Store), `queues`, `dispatch` and `deadletters` (SQS), `notices` (SNS),
  `credentials` (Secrets Manager); `failures` turns what their drivers raise into `errors`
- pure: `messages`, `letters`, `settings`, `horizon`, `tables`, `selection`, `schema`, `catalog`, `columns`, `stream`,
  `rows`, `windows`, `planning`, `backfills`, `plans`, `readings`, `continuity`, `events`, `runs`, `lake`, `ranges`,
  `timestamps`, `quoting`
"""

__version__ = "0.1.0"
