"""Is a lake right? Its ledger against itself, its objects against the ledger, its rows against the database.

From the outside in:

- `verifying` (a table is verified), `auditing` (its ledger and objects are looked through), `playback` (a segment is
  read again), `spooling` (its lines are hashed into files), `matching` and `comparing` (they are held against the
  table, whose rows the server counts and hashes), `workbench` (what is done so far, in a folder)
- pure: `audit` (do events add up?), `seams` (do readings fit together?), `coverage` (which rows the lake has to have,
  as SQL), `reshaping` (old lines as they would be now), `hashing`, `sums` and `spool` (hashes of keys and lines, their
  sums by groups, their files), `verdict` (what came of it, and what to do)
"""
