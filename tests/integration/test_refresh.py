"""Credentials that change while a function lives: they are asked for again when the database refuses them, once."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pg8000.native
import pytest
from msgspec.structs import replace

from tests.tide import LOCK_SECONDS, Server, wait_for
from tidelog.credentials import Credentials
from tidelog.errors import AccessDenied, DatabaseUnreachable, StoreUnreachable
from tidelog.source import Source
from tidelog.tables import TableName


class Secret:
    """A secret, and how often it was read."""

    def __init__(self, *values: Credentials) -> None:
        self.values = list(values)
        self.read = 0

    def __call__(self) -> Credentials:
        """Return the next value; the last one stays."""
        self.read += 1
        return self.values.pop(0) if len(self.values) > 1 else self.values[0]


@pytest.fixture
def good(server: Server, admin: pg8000.native.Connection, server_role: str) -> Credentials:
    """What a role has to say to be let in."""
    admin.run(f"ALTER ROLE {server_role} PASSWORD '{server.password}'")
    return server.credentials("postgres", server_role)


@pytest.fixture
def bad(good: Credentials) -> Credentials:
    """What it is refused for."""
    return replace(good, password="an old one")


def source(secret: Callable[[], Credentials]) -> Source:
    """Return a database that is reached with a secret."""
    return Source(secret, "disable", lock_seconds=LOCK_SECONDS)


def end_sessions(admin: pg8000.native.Connection, role: str) -> None:
    """End the sessions of a role, and wait until they have ended."""
    theirs = f"FROM pg_stat_activity WHERE usename = '{role}'"
    admin.run(f"SELECT pg_terminate_backend(pid) {theirs}")
    wait_for(lambda: not admin.run(f"SELECT pid {theirs}"))


def change_password(admin: pg8000.native.Connection, role: str) -> str:
    """Give a role another password, and end its sessions; return the password."""
    password = uuid.uuid4().hex
    admin.run(f"ALTER ROLE {role} PASSWORD '{password}'")
    end_sessions(admin, role)
    return password


def test_a_secret_is_read_once_while_connections_work(good: Credentials) -> None:
    """However many questions and connections: reading it costs, and takes time."""
    secret = Secret(good)
    database = source(secret)
    assert secret.read == 0
    for _ in range(3):
        database.relations()
        database.relations()
        database.close()
    assert secret.read == 1


def test_a_password_that_was_changed_is_read_again(admin: pg8000.native.Connection, good: Credentials) -> None:
    """A function that lives on goes on, and does so from then on without asking."""
    secret = Secret(good)
    reader = source(secret)
    reader.relations()
    for changes in (1, 2):
        secret.values = [replace(good, password=change_password(admin, good.username))]
        reader.relations()
        assert secret.read == 1 + changes
        reader.close()
        reader.relations()
        assert secret.read == 1 + changes
    reader.close()


def test_a_secret_that_is_just_being_changed_is_read_again(good: Credentials, bad: Credentials) -> None:
    """Also by a function that has only begun."""
    secret = Secret(bad, good)
    reader = source(secret)
    reader.relations()
    assert secret.read == 2
    reader.close()
    reader.relations()
    assert secret.read == 2
    reader.close()


def test_a_user_or_a_database_that_was_changed_is_read_again_too(good: Credentials) -> None:
    """Whatever it was that the server refused."""
    nobody = replace(good, username="nobody_such")
    nowhere = replace(good, dbname="nosuch")
    for wrong in (nobody, nowhere):
        reader = source(Secret(wrong, good))
        reader.relations()
        reader.close()


def test_the_same_secret_refused_twice_is_an_error(bad: Credentials) -> None:
    """It was read once more, and it is read again for the next message: by then it may be right."""
    secret = Secret(bad)
    reader = source(secret)
    for reads in (2, 4):
        with pytest.raises(AccessDenied, match=r"password authentication failed.*Check the user and the password"):
            reader.relations()
        assert secret.read == reads


def test_another_secret_that_is_refused_as_well_is_an_error(bad: Credentials, good: Credentials) -> None:
    """Nor is a third, as there may be one in the middle of a rotation; none of the passwords is shown."""
    secret = Secret(bad, replace(bad, password="a newer one"), replace(bad, password="the newest one"), good)
    reader = source(secret)
    with pytest.raises(AccessDenied) as refused:
        reader.relations()
    assert secret.read == 3
    assert not any(password in str(refused.value) for password in ("a newer one", "the newest one"))
    reader.relations()
    reader.close()


def test_a_function_that_was_locked_out_comes_back(admin: pg8000.native.Connection, good: Credentials) -> None:
    """The password was changed and the secret only later."""
    secret = Secret(good)
    reader = source(secret)
    reader.relations()
    password = change_password(admin, good.username)
    for reads in (2, 3):
        with pytest.raises(AccessDenied):
            reader.relations()
        assert secret.read == reads  # those that worked once are tried first
    secret.values = [replace(good, password=password)]
    reader.relations()
    reader.close()


def test_a_database_that_can_not_be_reached_says_nothing_of_the_secret(good: Credentials) -> None:
    """It is not read again for that."""
    secret = Secret(replace(good, port=1))
    with pytest.raises(DatabaseUnreachable):
        source(secret).relations()
    assert secret.read == 1


def test_a_table_that_may_not_be_read_says_nothing_of_the_secret(good: Credentials) -> None:
    """The connection was let in."""
    secret = Secret(good)
    table = TableName("pg_catalog", "pg_authid")
    with pytest.raises(AccessDenied, match="permission denied"), source(secret).open(table, seconds=10):
        pytest.fail("it was opened")
    assert secret.read == 1


def test_a_secret_that_can_not_be_read_again_is_that_error(good: Credentials, bad: Credentials) -> None:
    """And not the refusal that made it be read."""
    answers: list[Credentials | Exception] = [bad, StoreUnreachable("read", "the secret", "AWS answered"), good]

    def secret() -> Credentials:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    reader = source(secret)
    with pytest.raises(StoreUnreachable, match="read the secret"):
        reader.relations()
    reader.relations()
    reader.close()


def test_a_connection_that_was_lost_says_nothing_of_the_secret(
    admin: pg8000.native.Connection, good: Credentials
) -> None:
    """Another is opened with what is known."""
    secret = Secret(good)
    reader = source(secret)
    reader.relations()
    end_sessions(admin, good.username)
    reader.relations()
    assert secret.read == 1
    reader.close()
