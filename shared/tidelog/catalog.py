"""What PostgreSQL's catalog is asked: which relations there are, and what one table looks like.

Each question is one statement whose answer is one JSON text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from tidelog.errors import NotIngestible, UnknownTable
from tidelog.quoting import literal
from tidelog.tables import Relation, Table, TableName, refuse

_RELATIONS = """
SELECT coalesce(json_agg(json_build_object(
         'schema', n.nspname, 'name', c.relname, 'kind', c.relkind, 'populated', c.relispopulated)
       ORDER BY n.nspname, c.relname), '[]')::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
"""

# The leaves come from pg_inherits and not from pg_partition_tree(), which locks them: whether a leaf is locked already
# tells if it was there before the snapshot.
_TABLE = """
WITH RECURSIVE
rel AS (
  SELECT c.oid, c.relname, c.relkind, c.relispopulated, n.nspname
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = {schema} AND c.relname = {name}),
tree(oid, kind) AS (
  SELECT oid, relkind FROM rel
  UNION ALL
  SELECT c.oid, c.relkind FROM tree
  JOIN pg_inherits i ON i.inhparent = tree.oid AND NOT i.inhdetachpending
  JOIN pg_class c ON c.oid = i.inhrelid
  WHERE tree.kind = 'p'),
leaf AS (
  SELECT c.oid, c.relname, c.relkind, c.relfilenode, c.reltuples, c.reltoastrelid, n.nspname
  FROM tree JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind <> 'p'),
att AS (
  SELECT a.* FROM rel JOIN pg_attribute a ON a.attrelid = rel.oid AND a.attnum > 0 AND NOT a.attisdropped),
type(oid) AS (
  SELECT atttypid FROM att
  UNION
  SELECT part.oid FROM type JOIN pg_type t ON t.oid = type.oid
  CROSS JOIN LATERAL (
    SELECT t.typbasetype WHERE t.typbasetype <> 0
    UNION ALL SELECT t.typelem WHERE t.typsubscript = 'array_subscript_handler'::regproc
    UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
    UNION ALL SELECT a.atttypid FROM pg_attribute a
              WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
  ) part(oid))
SELECT json_build_object(
  'oid', rel.oid::bigint, 'schema', rel.nspname, 'name', rel.relname, 'kind', rel.relkind,
  'populated', rel.relispopulated, 'version', current_setting('server_version_num')::int / 10000,
  'edition', {edition},
  'columns', (SELECT coalesce(json_agg(json_build_object(
      'name', att.attname, 'type', att.atttypid::bigint, 'type_name', format_type(att.atttypid, att.atttypmod),
      'not_null', att.attnotnull, 'default', pg_get_expr(d.adbin, d.adrelid), 'generated', att.attgenerated,
      'number', att.attnum)
    ORDER BY att.attnum), '[]')
    FROM att LEFT JOIN pg_attrdef d ON d.adrelid = att.attrelid AND d.adnum = att.attnum),
  'key', (SELECT coalesce(json_agg(att.attname ORDER BY k.place), '[]')
    FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY k(attnum, place)
    JOIN att ON att.attnum = k.attnum
    WHERE i.indrelid = rel.oid AND i.indisprimary AND k.place <= i.indnkeyatts),
  'leaves', (SELECT coalesce(json_agg(json_build_object(
      'oid', leaf.oid::bigint, 'schema', leaf.nspname, 'name', leaf.relname, 'kind', leaf.relkind,
      'bytes', coalesce(pg_relation_size(leaf.oid), 0),
      'filenode', coalesce(pg_relation_filenode(leaf.oid)::bigint, 0),
      'pages', coalesce(pg_relation_size(leaf.oid), 0) / current_setting('block_size')::bigint,
      'size', coalesce(pg_relation_size(leaf.oid), 0) + coalesce(pg_relation_size(nullif(leaf.reltoastrelid, 0)), 0),
      'rows', leaf.reltuples::bigint,
      'filled', EXISTS (SELECT FROM pg_attribute a
        WHERE a.attrelid = leaf.oid AND a.atthasmissing AND NOT a.attisdropped),
      'dropped', (SELECT min(age(a.xmin)) FROM pg_attribute a WHERE a.attrelid = leaf.oid AND a.attisdropped),
      'locked', leaf.relfilenode IN (0, pg_relation_filenode(leaf.oid)) AND EXISTS (SELECT FROM pg_locks l
        WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.relation = leaf.oid AND l.granted
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())),
      'indexed', (SELECT coalesce(json_agg(DISTINCT a.attname), '[]')
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = leaf.oid AND i.indisvalid AND i.indpred IS NULL AND m.amname IN ('btree', 'brin')))
    ORDER BY leaf.oid), '[]')
    FROM leaf WHERE leaf.relkind <> 'f'),
  'foreign', (SELECT coalesce(json_agg(format('%I.%I', leaf.nspname, leaf.relname)), '[]')
    FROM leaf WHERE leaf.relkind = 'f'),
  'parents', (SELECT coalesce(json_agg(format('%I.%I', n.nspname, c.relname) ORDER BY i.inhseqno), '[]')
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE i.inhrelid = rel.oid AND c.relkind <> 'p'),
  'filled', (SELECT coalesce(json_agg(DISTINCT a.attname), '[]')
    FROM leaf JOIN pg_attribute a ON a.attrelid = leaf.oid AND a.atthasmissing AND NOT a.attisdropped),
  'types', (SELECT coalesce(json_agg(json_build_object(
      'oid', t.oid::bigint, 'name', format_type(t.oid, NULL), 'kind', t.typtype,
      'base', coalesce((SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)),
        t.typbasetype)::bigint,
      'element', CASE WHEN t.typsubscript = 'array_subscript_handler'::regproc THEN t.typelem::bigint ELSE 0 END,
      'fields', (SELECT coalesce(json_agg(json_build_object('name', a.attname, 'type', a.atttypid::bigint,
          'number', a.attnum)
          ORDER BY a.attnum), '[]')
        FROM pg_attribute a
        WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped),
      'labels', (SELECT coalesce(json_agg(e.enumlabel ORDER BY e.enumsortorder), '[]')
        FROM pg_enum e WHERE e.enumtypid = t.oid),
      'default', t.typdefault,
      'json_cast', t.oid >= 16384 AND EXISTS (SELECT FROM pg_cast k
        WHERE k.castsource = t.oid AND k.casttarget = 'json'::regtype AND k.castmethod = 'f'))
    ORDER BY t.oid), '[]')
    FROM type JOIN pg_type t ON t.oid = type.oid)
)::text
FROM rel
"""

# Of catalog rows, the versions: of the relations of a `tree`, their columns and keys, and the user's `type`s.
_EDITION = """
(SELECT md5(concat_ws('|',
  (SELECT string_agg(concat_ws(',', c.oid, n.nspname, c.xmin, c.relfilenode,
     (SELECT string_agg(a.attnum || ':' || a.xmin, ',' ORDER BY a.attnum)
      FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0),
     (SELECT i.indexrelid || ':' || i.xmin FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)),
     ';' ORDER BY c.oid)
   FROM tree JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace),
  (SELECT string_agg(concat_ws(',', t.oid, t.xmin,
     (SELECT string_agg(e.oid || ':' || e.xmin, ',' ORDER BY e.oid) FROM pg_enum e WHERE e.enumtypid = t.oid),
     (SELECT string_agg(a.attnum || ':' || a.xmin, ',' ORDER BY a.attnum)
      FROM pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0)), ';' ORDER BY t.oid)
   FROM type JOIN pg_type t ON t.oid = type.oid AND t.oid >= 16384))))
"""

_GLANCE = """
WITH RECURSIVE
tree(oid, kind) AS (
  SELECT c.oid, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = {schema} AND c.relname = {name}
  UNION ALL
  SELECT c.oid, c.relkind FROM tree
  JOIN pg_inherits i ON i.inhparent = tree.oid AND NOT i.inhdetachpending
  JOIN pg_class c ON c.oid = i.inhrelid
  WHERE tree.kind = 'p'),
type(oid) AS (SELECT unnest('{types}'::oid[]))
SELECT json_build_object('snapshot', ({snapshot})::json, 'edition', {edition}, 'rows', {rows})::text
"""

# Whatever is compared with the snapshot is read in the statement that takes it, and after it.
_SNAPSHOT = """
SELECT json_build_object(
  'database', json_build_object(
    'system', (SELECT system_identifier::text FROM pg_control_system()),
    'oid', (SELECT oid::bigint FROM pg_database WHERE datname = current_database()),
    'name', current_database(),
    'wal_timeline', CASE WHEN standby
      THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()),
                    (SELECT min_recovery_end_timeline FROM pg_control_recovery()))::bigint
      ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint END),
  'horizon', horizon::text::bigint,
  'limit', pg_snapshot_xmax(snapshot)::text::bigint,
  'next', horizon::text::bigint + age(horizon::xid),
  'read_at', to_json(transaction_timestamp()),
  'seen_at', to_json(CASE WHEN standby THEN pg_last_xact_replay_timestamp() ELSE transaction_timestamp() END),
  'standby', standby,
  'wal_position', CASE WHEN standby THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text)::text
FROM (SELECT s AS snapshot, pg_snapshot_xmin(s) AS horizon, pg_is_in_recovery() AS standby
      FROM pg_current_snapshot() s OFFSET 0) now
"""


# A running transaction's id stands in one of the two; the horizon is the oldest one. All may see the ids, but not since
# when: that takes pg_read_all_stats.
_HORIZON = """
SELECT json_build_object('horizon', h.low::text::bigint, 'limit', h.high::text::bigint, 'holder', coalesce(
  (SELECT json_build_object('pid', a.pid, 'user', a.usename, 'database', a.datname,
                            'application', nullif(a.application_name, ''), 'since', a.xact_start)
   FROM pg_stat_activity a WHERE a.backend_xid = h.stored LIMIT 1),
  (SELECT json_build_object('prepared', p.gid, 'user', p.owner, 'database', p.database, 'since', p.prepared)
   FROM pg_prepared_xacts p WHERE p.transaction = h.stored LIMIT 1)))::text
FROM (SELECT pg_snapshot_xmin(s) AS low, pg_snapshot_xmax(s) AS high,
             (pg_snapshot_xmin(s)::text::numeric % 4294967296)::text::xid AS stored
      FROM pg_current_snapshot() s) h
"""


# A transaction that has committed and waits for a synchronous standby is in progress; so are its sub-transactions.
_ACCESS = """
SELECT coalesce(json_agg(json_build_object(
         'schema', n.nspname, 'name', c.relname, 'usage', has_schema_privilege(n.oid, 'USAGE'),
         'select', has_table_privilege(c.oid, 'SELECT'), 'guarded', row_security_active(c.oid),
         'unlogged', c.relpersistence = 'u') ORDER BY c.oid), '[]')::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY ('{{{oids}}}')
"""

_UNENDED = """
SELECT EXISTS (
  SELECT FROM unnest('{{{xids}}}'::xid8[]) xid
  WHERE CASE WHEN xid < pg_snapshot_xmax(pg_current_snapshot()) THEN pg_xact_status(xid) = 'in progress' ELSE true END)
"""

_COMMITTED = """
SELECT coalesce(json_agg(xid::text::bigint), '[]')::text
FROM unnest('{{{xids}}}'::xid8[]) xid WHERE pg_xact_status(xid) = 'committed'
"""


def horizon_query() -> str:
    """Return the question for the horizon, and who holds it."""
    return _HORIZON


def relations_query() -> str:
    """Return the statement that lists every user relation."""
    return _RELATIONS


def read_relations(answer: str) -> tuple[Relation, ...]:
    """Read the answer to `relations_query`."""
    return msgspec.json.decode(answer, type=tuple[Relation, ...])


def table_query(table: TableName) -> str:
    """Return the statement that describes one table; it has no row where there is no such relation."""
    return _TABLE.format(schema=literal(table.schema), name=literal(table.name), edition=_EDITION)


def glance_query(table: Table, rows: str) -> str:
    """Return the statement that says whether a table is still what it was, with a count of rows.

    Args:
        table: what it was.
        rows: an expression that counts rows.
    """
    types = "{" + ",".join(str(each.oid) for each in table.types) + "}"
    return _GLANCE.format(
        schema=literal(table.schema),
        name=literal(table.name),
        types=types,
        snapshot=_SNAPSHOT,
        edition=_EDITION,
        rows=rows,
    )


def read_table(table: TableName, answer: Sequence[Sequence[str]]) -> Table:
    """Read the answer to `table_query`.

    Raises:
        UnknownTable: there is no such table.
        NotIngestible: it is a view, a foreign table, or has a foreign table among its partitions.
    """
    if not answer:
        raise UnknownTable("read", table, "there is no such table", "Check its name, and the schema's")
    description = msgspec.json.decode(answer[0][0], type=Table)
    refuse(table, description.kind, populated=description.populated)
    if description.foreign:
        names = ", ".join(description.foreign)
        raise NotIngestible(
            "read", table, f"its partition {names} is a foreign table", "Detach it or exclude the table"
        )
    return description


def there_query(oids: Iterable[int]) -> str:
    """Return the statement that lists which of some relations are there."""
    wanted = ",".join(map(str, oids))
    return f"SELECT coalesce(json_agg(oid::bigint), '[]')::text FROM pg_class WHERE oid = ANY ('{{{wanted}}}')"


def access_query(oids: Iterable[int]) -> str:
    """Return the question what the role may do with some relations: a JSON array of `advice.Access`."""
    return _ACCESS.format(oids=",".join(map(str, oids)))


def unended_query(xids: Iterable[int]) -> str:
    """Return the question whether any transaction of some ids, sub-transactions among them, has not ended yet."""
    return _UNENDED.format(xids=",".join(map(str, xids)))


def committed_query(xids: Iterable[int]) -> str:
    """Return the question which transactions of some ids, sub-transactions among them, have committed."""
    return _COMMITTED.format(xids=",".join(map(str, xids)))


def snapshot_query() -> str:
    """Return the statement that takes the transaction's snapshot and says what it is."""
    return _SNAPSHOT
