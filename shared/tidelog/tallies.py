"""Tallies: short texts that change whenever PostgreSQL has counted a change of a table.

A tally is made of what the server says of a table and of all the relations that hold its rows: oids, files, versions of
their catalog rows and columns, and the counters of inserted, updated and deleted rows. Counters are written down after
the commit that they tell of, so a row that is counted is visible. They may come late: by a second as a rule, by the
length of the next transaction of that session at worst. And they mean nothing without the server's own part: a restart,
a crash, a failover or a reset of the statistics begins them anew, and makes all tallies others.

Tallies are compared for being the same, never for being more.
"""

from __future__ import annotations

import hashlib

import msgspec

from tidelog.tables import Relation, TableName

# Statistics of the fixed kinds are stamped anew when a server discards all after a crash; its start time stays if only
# its processes were killed. A standby counts nothing. What a type means is no change of any table's own catalog rows.
_QUERY = """
WITH RECURSIVE
found AS (
  SELECT c.oid, n.nspname, c.relname, c.relkind, c.relispopulated
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f') AND NOT c.relispartition AND c.relpersistence <> 't'
    AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'),
tree(root, oid, kind) AS (
  SELECT oid, oid, relkind FROM found WHERE relkind IN ('r', 'p', 'm')
  UNION ALL
  SELECT tree.root, c.oid, c.relkind FROM tree
  JOIN pg_inherits i ON i.inhparent = tree.oid AND NOT i.inhdetachpending
  JOIN pg_class c ON c.oid = i.inhrelid
  WHERE tree.kind = 'p'),
described AS (
  SELECT attrelid AS oid, sum(hashtextextended(attnum || ':' || xmin, 0)) AS columns
  FROM pg_attribute WHERE attnum > 0 AND attrelid >= 16384 GROUP BY attrelid),
counted AS (
  SELECT tree.root AS oid, hashtextextended(string_agg(concat_ws(',', c.oid, c.xmin, c.relfilenode, d.columns,
      (SELECT i.indexrelid || ':' || i.xmin FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary),
      pg_stat_get_tuples_inserted(c.oid), pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_deleted(c.oid)),
    ';' ORDER BY c.oid), 0)::text AS tally
  FROM tree JOIN pg_class c USING (oid) LEFT JOIN described d USING (oid)
  GROUP BY tree.root),
meant AS (
  SELECT concat_ws(',', oid, xmin) AS row FROM pg_enum
  UNION ALL SELECT concat_ws(',', oid, xmin) FROM pg_type WHERE typtype IN ('d', 'e')
  UNION ALL SELECT concat_ws(',', c.oid, d.columns)
            FROM pg_class c JOIN described d USING (oid) WHERE c.relkind = 'c')
SELECT json_build_object(
  'server', CASE WHEN NOT pg_is_in_recovery() AND current_setting('track_counts')::bool THEN concat_ws(',',
      (SELECT system_identifier FROM pg_control_system()),
      extract(epoch FROM pg_postmaster_start_time()),
      extract(epoch FROM (SELECT stats_reset FROM pg_stat_get_archiver())),
      d.oid, 'reset', extract(epoch FROM pg_stat_get_db_stat_reset_time(d.oid)), 'types',
      (SELECT hashtextextended(string_agg(row, ';' ORDER BY row), 0) FROM meant)) END,
  'relations', (SELECT coalesce(json_agg(json_build_object(
      'schema', found.nspname, 'name', found.relname, 'kind', found.relkind, 'populated', found.relispopulated,
      'tally', counted.tally) ORDER BY found.nspname, found.relname), '[]')
    FROM found LEFT JOIN counted USING (oid)))::text
FROM pg_database d WHERE d.datname = current_database()
"""


class Tallied(msgspec.Struct, frozen=True):
    """What a server has counted."""

    server: str | None
    """What all of it stands and falls with; None where nothing is counted: on a standby, or with track_counts off."""
    relations: tuple[Relation, ...]

    def tallies(self, configuration: int, *, lake: str) -> dict[TableName, str]:
        """Return the tally of each table; nothing where nothing is counted.

        Args:
            configuration: the version that tables are read by. Another one reads them otherwise.
            lake: the bucket. Another one has nothing of what was read, though a stack of this name has noted it.
        """
        if self.server is None:
            return {}
        return {
            relation.table_name: _short(self.server, configuration, lake, relation.tally)
            for relation in self.relations
            if relation.tally
        }


def tallies_query() -> str:
    """Return the statement that lists every user relation, as `catalog.relations_query` does, with its counters."""
    return _QUERY


def read_tallied(answer: str) -> Tallied:
    """Read the answer to `tallies_query`."""
    return msgspec.json.decode(answer, type=Tallied)


def _short(*parts: object) -> str:
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:16]
