"""What is seen at each tick: tables that were not read, a transaction that holds the horizon."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

import pg8000.native
import pytest

from tests.faults import Process, Step, refusal
from tests.integration.conftest import Clock, Post
from tests.tide import LIMITS, Database, Lake, Server, Tide, connect, wait_for
from tidelog.errors import AccessDenied
from tidelog.horizon import Holder, Horizon
from tidelog.marks import Marks
from tidelog.notices import Notices
from tidelog.parameters import Parameters, Summary, summarize
from tidelog.source import Source
from tidelog.state import State
from tidelog.tables import TableName
from tidelog.watching import Sight, Watch, Watching

A, B, C = (TableName("public", name) for name in "abc")
STALE, HELD = 1800, 3600
NEXT_ID = "SELECT pg_current_xact_id()::text::bigint"


class Bridge:
    """From where one looks."""

    def __init__(self, database: Database, lake: Lake, post: Post, clock: Clock) -> None:
        self.database = database
        self.source = database.source()
        self.lake = lake
        self.post = post
        self.clock = clock
        self.parameters = Parameters(lake.ssm, lake.prefix)

    def look(
        self,
        *tables: TableName,
        source: Source | None = None,
        ssm: Any = None,
        sns: Any = None,
        asked: dict[TableName, datetime] | None = None,
    ) -> Sight:
        """Look as another process does, parts of which may be others."""
        ssm, prefix = ssm or self.lake.ssm, self.lake.prefix
        marks = Marks(ssm, prefix)
        watching = Watching(
            source=source or self.source,
            parameters=Parameters(ssm, prefix),
            marks=marks,
            notices=Notices(sns or self.post.sns, self.post.topic, "prod", marks, self.clock),
            watch=Watch(stale_seconds=STALE, horizon_seconds=HELD),
            now=self.clock,
        )
        return watching.look(tables, asked=asked)

    def read(self, table: TableName, seconds_ago: float) -> None:
        """Note that a table was read some time ago."""
        at = self.clock.now - timedelta(seconds=seconds_ago)
        self.parameters.write(table, Summary(1, 1, checked_at=at.isoformat(timespec="seconds")))

    def notices(self, about: str) -> list[str]:
        """Take the notices; return the texts of those with some words in the subject."""
        return [text for subject, text in self.post.notices() if about in subject]


@pytest.fixture(scope="module")
def shared(server: Server) -> Iterator[Database]:
    """The database that every server has, in which nothing is made."""
    database = Database(server, "postgres")
    yield database
    database.close()


@pytest.fixture
def bridge(shared: Database, lake: Lake, post: Post, clock: Clock) -> Iterator[Bridge]:
    """Where one looks."""
    bridge = Bridge(shared, lake, post, clock)
    yield bridge
    bridge.source.close()


def test_a_table_that_was_read_is_not_stale(bridge: Bridge) -> None:
    """Its age is known; tables that no tick asks for are nobody's business."""
    bridge.read(A, 60)
    bridge.read(B, STALE - 1)
    bridge.read(C, STALE)
    sight = bridge.look(A, B)
    assert (sight.stalest, sight.stale) == (STALE - 1, ())
    assert bridge.notices("stale") == []


def test_tables_that_were_not_read_for_too_long_are_told_of_the_longest_first(bridge: Bridge) -> None:
    """Each with its time, and what to look at; once an hour."""
    bridge.read(A, 60)
    bridge.read(B, STALE)
    bridge.read(C, 7 * 3600)
    for _ in range(2):
        sight = bridge.look(A, B, C)
        assert list(sight.stale) == [(str(C), 7 * 3600), (str(B), STALE)]
        assert sight.stalest == 7 * 3600
    [text] = bridge.notices("[prod] 2 tables have gone stale")
    assert "\n    public.c  (7.0 h)\n    public.b  (30 min)\n" in text
    assert "public.a" not in text
    assert "tidelog dead-letters list" in text
    bridge.clock.now += timedelta(hours=1)
    bridge.look(B)
    assert len(bridge.notices("[prod] 1 table has gone stale")) == 1


def test_nobody_has_waited_for_a_table_longer_than_ticks_have_asked_for_it(bridge: Bridge) -> None:
    """It was idle before, so nobody looked; from then on its age counts, and a run begins it anew."""
    bridge.read(A, 7 * 3600)
    bridge.read(B, 60)
    now = bridge.clock.now
    sight = bridge.look(A, B, asked={A: now - timedelta(seconds=90), B: now - timedelta(hours=7)})
    assert (sight.stalest, sight.stale) == (90, ())
    assert bridge.look(A, asked={A: now - timedelta(seconds=STALE)}).stale == ((str(A), STALE),)


def test_of_many_stale_tables_the_worst_are_named(bridge: Bridge) -> None:
    """The rest are counted: a notice stays short."""
    tables = [TableName("public", f"t{number:02}") for number in range(25)]
    for number, table in enumerate(tables):
        bridge.read(table, STALE + 60 * number)
    assert len(bridge.look(*tables).stale) == 25
    [text] = bridge.notices("25 tables")
    assert [name for name in map(str, tables) if name in text] == [str(table) for table in tables[5:]]
    assert "\n    and 5 more\n" in text


def test_a_table_that_was_never_seen_is_awaited_from_now_on(bridge: Bridge, tide: Tide) -> None:
    """It may be new: it is stale when nobody has read it for long; once it is read it is a table like others."""
    look, tide.now = bridge.look, bridge.clock
    assert look(A).stale == ()
    expected = bridge.parameters.read(A)
    assert expected
    assert expected.is_blank
    for seconds, stale in ((STALE - 60, False), (60, True)):
        bridge.clock.now += timedelta(seconds=seconds)
        assert bool(look(A).stale) == stale
    tide.run("CREATE TABLE a AS SELECT 1 AS id")
    assert tide.ingest("public.a").outcome == "snapshotted"
    assert look(A).stalest == 0
    summary = bridge.parameters.read(A)
    assert summary
    assert not summary.is_blank


def test_awaiting_a_table_leaves_its_summary_alone(bridge: Bridge) -> None:
    """A worker may have been faster."""
    bridge.read(A, 60)
    before = bridge.parameters.read(A)
    bridge.parameters.expect(A, bridge.clock.now)
    assert bridge.parameters.read(A) == before


def test_a_summary_without_a_time_is_of_no_age(bridge: Bridge) -> None:
    """As tidelog wrote them before it noted when a table was read: the next run notes it."""
    bridge.parameters.write(A, Summary(1, 1))
    assert Summary(1, 1).age(bridge.clock.now) == 0
    assert not Summary().is_blank
    assert bridge.look(A).stalest == 0


@pytest.mark.parametrize("filled", [True, False], ids=["filled", "empty"])
def test_a_run_without_new_rows_notes_now_and_then_that_the_table_was_read(
    bridge: Bridge, tide: Tide, filled: bool
) -> None:
    """Not each: an idle table costs nothing. Nothing else of its summary changes."""
    clock = tide.now = bridge.clock
    tide.run(f"CREATE TABLE a AS SELECT 1 AS id WHERE {filled}")
    tide.ingest("public.a")
    first = tide.parameters.read(A)
    assert first == summarize(tide.state("public.a"), clock.now)
    process = Process()
    clock.now += timedelta(seconds=LIMITS.fresh)
    assert tide.ingest("public.a", ssm=process.client(tide.lake.ssm)).outcome == "unchanged"
    assert "put_parameter" not in process.calls
    clock.now += timedelta(seconds=1)
    assert tide.ingest("public.a", ssm=process.client(tide.lake.ssm)).outcome == "unchanged"
    assert process.calls.count("put_parameter") == 1
    assert tide.parameters.read(A) == summarize(tide.state("public.a"), clock.now)
    assert bridge.look(A).stalest == 0


def test_a_state_that_is_known_moves_in_time_and_never_back(bridge: Bridge) -> None:
    """A worker that comes late leaves alone what a faster one has written, however old that is."""
    parameters, now = bridge.parameters, bridge.clock.now
    newer, older = State(offset=5, sequential_id=3), State(offset=4, sequential_id=2)
    parameters.project(A, newer, None, now)
    later = now + timedelta(days=1)
    parameters.project(A, older, parameters.read(A), later, fresh=60)
    assert parameters.read(A) == summarize(newer, now)
    parameters.project(A, newer, parameters.read(A), now + timedelta(seconds=60), fresh=60)
    parameters.project(A, newer, parameters.read(A), later)
    assert parameters.read(A) == summarize(newer, now)
    parameters.project(A, newer, parameters.read(A), later, fresh=60)
    assert parameters.read(A) == summarize(newer, later)


def test_a_parameter_store_that_is_out_of_reach_is_an_error(bridge: Bridge) -> None:
    """The scheduler has failed then, and says so; the messages of the tick are on the queue."""
    process = Process()
    process.at("before", Step("put_parameter"), refusal("AccessDeniedException"))
    with pytest.raises(AccessDenied, match=r"write the state of public\.a"):
        bridge.look(A, ssm=process.client(bridge.lake.ssm))


def test_tables_that_are_too_many_to_be_noted_at_once_are_noted_at_the_next_tick(bridge: Bridge) -> None:
    """Parameter Store takes few writes a second; the first tick of a large database is no failure."""
    process = Process()
    process.at("after", Step("put_parameter"), refusal("ThrottlingException"))
    bridge.look(A, B, ssm=process.client(bridge.lake.ssm))
    assert set(dict(bridge.parameters.read_all())) == {A}
    bridge.look(A, B)
    assert set(dict(bridge.parameters.read_all())) == {A, B}


@pytest.mark.parametrize("value", ["mine", '{"checked_at":"soon"}', '{"checked_at":"2026-11-23T12:00:00"}'])
def test_a_parameter_that_is_no_summary_keeps_nobody_from_looking(bridge: Bridge, value: str) -> None:
    """The next run of its table writes it anew; a table that is gone has none."""
    bridge.read(B, STALE)
    bridge.lake.ssm.put_parameter(Name=f"{bridge.lake.prefix}/tables/public/a", Value=value, Type="String")
    assert [table for table, _ in bridge.look(A, B).stale] == [str(B)]


def test_a_notice_that_can_not_be_sent_is_no_failure_of_the_look(bridge: Bridge) -> None:
    """The alarm on the metric tells of it too."""
    bridge.read(A, STALE)
    process = Process()
    process.at("before", Step("publish"), refusal("AuthorizationError"))
    assert bridge.look(A, sns=process.client(bridge.post.sns)).stale
    assert process.calls == ["publish"]


# ---- the horizon: of the whole server, on which other tests open transactions too -----------------------------------


@contextmanager
def holding(database: Database, session: pg8000.native.Connection) -> Iterator[int]:
    """Have a session hold the horizon, from the moment that nobody holds it from before."""
    session.run("SET application_name = 'migration'")
    session.run("BEGIN")
    [[own]] = session.run(NEXT_ID)
    source = database.source()
    wait_for(lambda: source.horizon().horizon == own)
    yield own
    with suppress(pg8000.native.DatabaseError, pg8000.native.InterfaceError):  # a test may have ended it
        session.run("ROLLBACK")
    source.close()


def pid(session: pg8000.native.Connection) -> int:
    """Return the process id of a session."""
    [[number]] = session.run("SELECT pg_backend_pid()")
    return int(number)


def test_a_transaction_that_stays_open_holds_the_horizon_ever_longer(bridge: Bridge) -> None:
    """Seconds pass from look to look, whoever looks; too many are told of, once an hour."""
    with bridge.database.session() as session, holding(bridge.database, session):
        seconds = []
        for passed in (0, 0, 600, 2999, 1, 60):
            bridge.clock.now += timedelta(seconds=passed)
            bridge.database.run(NEXT_ID)  # others go on
            sight = bridge.look()
            assert f"session {pid(session)} of postgres in database {bridge.database.name}" in sight.holder
            seconds.append(sight.held)
            told = len(bridge.notices("[prod] a transaction holds the horizon"))
            assert told == (sight.held == HELD)
        assert seconds == [0, 0, 600, 3599, HELD, HELD + 60]
    bridge.database.pass_horizon()
    assert bridge.look().held == 0


def test_the_notice_of_a_held_horizon_says_who_and_how_to_end_it(bridge: Bridge) -> None:
    """What it says to run does end it."""
    session = connect(bridge.database.server.credentials("postgres"))
    with holding(bridge.database, session):
        bridge.look()
        bridge.clock.now += timedelta(hours=3)
        bridge.look()
        [text] = bridge.notices("horizon")
        [[since]] = session.run("SELECT to_json(xact_start)#>>'{}' FROM pg_stat_activity WHERE pid = pg_backend_pid()")
        assert "A transaction has held the horizon for 3.0 h: session" in text
        assert f"(migration) open since {since}" in text
        remedy = re.search(r"To end it: (.*)", text)
        assert remedy
        ended = pid(session)
        assert remedy[1] == f"SELECT pg_terminate_backend({ended})"
        bridge.database.run(remedy[1])
        bridge.database.pass_horizon()
        assert f"session {ended} " not in bridge.look().holder
    with suppress(pg8000.native.InterfaceError):
        session.close()


def test_a_role_without_privileges_sees_who_holds_the_horizon(bridge: Bridge, server_role: str) -> None:
    """But not since when: that takes pg_read_all_stats."""
    database = bridge.database
    with database.session() as session, holding(database, session):
        source = database.source(server_role)
        seen = source.horizon()
        source.close()
        assert seen.holder == Holder(pid=pid(session), user="postgres", database=database.name, application="migration")
        assert seen.held
        full = bridge.source.horizon().holder
        assert full
        assert full.since


def test_a_transaction_of_another_database_holds_the_horizon_too(bridge: Bridge) -> None:
    """It is one of the server."""
    database = bridge.database
    session = connect(database.server.credentials("template1"))
    try:
        with holding(database, session):
            assert f"session {pid(session)} of postgres in database template1" in bridge.look().holder
    finally:
        session.close()


def test_a_prepared_transaction_holds_the_horizon_without_a_session(bridge: Bridge) -> None:
    """Nobody sees it in the list of sessions, and it outlives a restart: its name is what ends it."""
    database, name = bridge.database, f"it's {uuid.uuid4().hex}"
    literal = name.replace("'", "''")
    with database.session() as session:
        session.run("BEGIN")
        [[own]] = session.run(NEXT_ID)
        session.run(f"PREPARE TRANSACTION '{literal}'")
    try:
        wait_for(lambda: bridge.source.horizon().horizon == own)
        bridge.look()
        bridge.clock.now += timedelta(seconds=HELD)
        sight = bridge.look()
        assert (sight.held, "prepared transaction" in sight.holder, name in sight.holder) == (HELD, True, True)
        [text] = bridge.notices("horizon")
        remedy = re.search(rf"To end it: .* or (ROLLBACK PREPARED .*), in database {database.name}", text)
        assert remedy
    finally:
        database.run(f"ROLLBACK PREPARED '{literal}'")
    assert remedy[1] == f"ROLLBACK PREPARED '{literal}'"
    database.pass_horizon()
    assert bridge.look().held == 0


def test_a_transaction_that_only_reads_holds_nothing(bridge: Bridge) -> None:
    """However long: it has no id."""
    database = bridge.database
    with database.session() as session:
        session.run("BEGIN ISOLATION LEVEL REPEATABLE READ")
        session.run("SELECT count(*) FROM pg_class")
        database.pass_horizon()
        assert f"session {pid(session)} " not in bridge.look().holder


@pytest.mark.parametrize("value", ["{}", "yesterday", '{"horizon":"1","since":2}'])
def test_a_mark_that_can_not_be_read_begins_anew(bridge: Bridge, value: str) -> None:
    """As if the horizon were seen for the first time."""
    name = f"{bridge.lake.prefix}/horizon"
    bridge.lake.ssm.put_parameter(Name=name, Value=value, Type="String")
    with bridge.database.session() as session, holding(bridge.database, session):
        assert bridge.look().held == 0
        bridge.clock.now += timedelta(seconds=60)
        assert bridge.look().held == 60


def seeing(horizon: Horizon) -> Source:
    """Return a database that answers so."""

    class Fixed(Source):
        def horizon(self) -> Horizon:
            """Return it."""
            return horizon

    return Fixed(lambda: pytest.fail("nobody asks"), "disable", lock_seconds=1)


@pytest.mark.parametrize(
    ("horizon", "held", "words"),
    [
        (Horizon(700, 700, None), False, ""),
        (Horizon(700, 705, None), True, "one that this role can't see"),
        (Horizon(700, 700, Holder(pid=7)), True, "session 7"),
    ],
    ids=["nobody", "somebody unseen", "a session that nobody has overtaken"],
)
def test_a_horizon_is_held_by_whoever_runs(bridge: Bridge, horizon: Horizon, held: bool, words: str) -> None:
    """On a standby it runs on the primary, where nobody can see who it is; the notice says where to look."""
    source = seeing(horizon)
    assert bridge.look(source=source).held == 0
    bridge.clock.now += timedelta(seconds=HELD)
    sight = bridge.look(source=source)
    assert (sight.held, bool(sight.holder)) == (HELD if held else 0, held)
    texts = bridge.notices("horizon")
    assert len(texts) == held
    assert all(words in text for text in texts)
    if held and not horizon.holder:
        assert "pg_prepared_xacts of the primary" in texts[0]


def test_a_horizon_that_moves_is_not_held_however_slowly(bridge: Bridge) -> None:
    """A busy server always has some transaction under way."""
    for horizon in range(700, 710):
        sight = bridge.look(source=seeing(Horizon(horizon, horizon + 5, None)))
        assert sight.held == 0
        bridge.clock.now += timedelta(seconds=HELD)
    assert bridge.notices("horizon") == []
