import time, pytest
from tests.tide import *
from tests.conftest import *
def t(name, f):
    s=time.perf_counter(); r=f(); print(f"{name:20} {1000*(time.perf_counter()-s):.1f} ms"); return r
@pytest.mark.parametrize("i", range(3))
def test_p(server, admin, aws, i):
    n=uuid.uuid4().hex
    t("create", lambda: admin.run(f"CREATE DATABASE d{n} TEMPLATE template0"))
    d=t("connect", lambda: Database(server, f"d{n}"))
    lake=t("bucket", lambda: make_lake(aws.s3, aws.ssm))
    tide=t("tide", lambda: Tide(d,lake))
    t("ddl", lambda: tide.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)"))
    t("ingest1", tide.ingest)
    t("ingest2", tide.ingest)
    tide.run("INSERT INTO t VALUES (3)")
    t("ingest3", tide.ingest)
    t("lines", tide.lines)
    t("check", tide.check)
    t("close", d.close)
    t("drop", lambda: admin.run(f"DROP DATABASE d{n} WITH (FORCE)"))
    import cProfile, pstats
