"""Every new or changed row of a PostgreSQL database in S3 as JSON Lines, exactly once per row version.

The modules from the outside in:

- use cases: `scheduling` (a tick becomes messages), `idling` (which tables need none), `watching` (is all well?),
  `requesting` (a backfill is checked and sent), `surveying` (what would be ingested), `working` (a message is worked
  off, tried again or buried), `ingesting` (a run of a table), `glancing` (nothing is new), `timelines` (whether one
  starts), `altering` (what was altered since the last one), `backfilling` (a backfill is planned), `sweeping` (a sweep
  is planned), `chunking` (a chunk of a plan is read), `rebuilding` (Parameter Store is made again from the ledger),
  `extraction` (the steps of a run as plain functions), over the `parts` that `pipeline` builds on AWS's `clients`, and
  `scheduler` for ticks; the package `verification` (is a lake right?)
- the world: `source` (PostgreSQL, through `connection`, `wire`, `opening` and `refusals`), `segment`, `publishing`,
  `history`, `ledger`, `stores`, `objects` and `memory` (S3), `parameters`, `marks`, `ticks` and `configurations`
  (Parameter Store), `queues`, `dispatch` and `deadletters` (SQS), `notices` (SNS), `credentials` (Secrets Manager);
  `failures` turns what their drivers raise into `errors`
- readers: `read` (tables, rows, what is new since), `stored` (a published segment), over `stores`
- pure: `advice`, `configuration`, `tablesettings`, `limits`, `messages`, `letters`, `settings`, `horizon`, `tables`,
  `selection`, `schema`, `partitions`, `catalog`, `tallies`, `columns`, `stream`, `rows`, `windows`, `planning`,
  `retracing`, `backfills`, `sweeps`, `hidden`, `plans`, `readings`, `continuity`, `events`, `folding`, `records`,
  `state`, `runs`, `lake`, `ranges`, `timestamps`, `quoting`, `lineage`
"""

__version__ = "0.1.0"
