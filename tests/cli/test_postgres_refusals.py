"""What people are told when the server does not do as they wish: why, and what to try."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import postgresql
import psycopg
import pytest
from command_line import done, refused
from postgres_proxy import TlsProxy

from orders import PlaceOrder
from orders.adapters.postgres.store import PostgresStore

CERTIFICATE = Path(__file__).parent.parent / "adapters" / "certificate.pem"  # its key, too
SECRET = "p%3Assw0rd"
DECODED = "p:ssw0rd"
FROM_START = ["--from", "start", "--until-idle", "0.1"]


@pytest.fixture
def guarded(postgres):
    """Return the URL of a database of a role that has to give its password, which is SECRET."""
    if not postgres.execute("select 1 from pg_roles where rolname = 'guarded'"):
        postgres.execute(f"create role guarded login password '{DECODED}'")

    def with_password(password=SECRET, database="postgres", **parameters):
        return postgres.url(database, "guarded", password, **parameters)

    yield with_password
    postgres.execute("alter role guarded connection limit -1")


def test_a_server_that_is_down_is_named(tool):
    nowhere = f"postgresql://ada:{SECRET}@127.0.0.1:{postgresql.free_port()}/shop"
    result = tool("list", data=nowhere)
    refused(result, "Connection refused", "try: start the server")
    assert "ssw0rd" not in result.stderr


@pytest.mark.parametrize(
    ("password", "database", "parameters", "words"),
    [
        ("wr0ng", "postgres", {}, ["password authentication failed", "~/.pgpass"]),
        ("", "postgres", {}, ["no password supplied", "~/.pgpass"]),
        (SECRET, "nowhere", {}, ['database "nowhere" does not exist', "create the database"]),
        (SECRET, "postgres", {"sslmode": "require"}, ["SSL", "sslmode"]),
        (SECRET, "postgres", {"schema": "pg_toast"}, ["no name of a schema", "?schema=orders"]),
        (SECRET, "postgres", {"sslmod": "x"}, ["no URL", "postgresql://USER@HOST"]),
        (SECRET, "postgres", {}, ["may not make it", "create schema", "authorization guarded"]),
    ],
    ids=["wrong", "none", "database", "tls", "schema", "option", "rights"],
)  # fmt: skip
@pytest.mark.sample(4)
def test_whoever_is_not_let_in_is_told_why(tool, guarded, password, database, parameters, words):
    data = guarded(password, database, **parameters)
    for command in (["list"], ["place", "rope"], ["--data", data, "show", "x"]):
        result = tool(*command, data=data)
        refused(result, *words)
        assert "ssw0rd" not in result.stderr
        assert "wr0ng" not in result.stderr


def test_whoever_may_not_make_the_schema_may_use_the_one_that_was_made(tool, guarded, postgres):
    data = guarded(schema="made")
    hint = tool("list", data=data).stderr.partition("have it made by: ")[2].strip()
    postgres.execute(hint)
    assert tool("place", "rope", data=data).returncode == 0
    postgres.execute("drop schema made cascade")


@pytest.fixture
def encrypted(postgres):
    """Return what makes URLs of a server whose certificate nobody knows."""
    with TlsProxy(postgres.port, CERTIFICATE) as proxy:
        yield lambda **parameters: postgres.url(**parameters).replace(
            f":{postgres.port}/", f":{proxy.port}/"
        )


def test_a_connection_may_be_encrypted_and_its_certificate_checked(tool, encrypted, url):
    schema = url.partition("schema=")[2]
    for parameters in (
        {"sslmode": "require"},
        {"sslmode": "verify-full", "sslrootcert": CERTIFICATE},
    ):
        data = encrypted(schema=schema, **parameters)
        assert tool("place", "rope", data=data).returncode == 0
        with closing(PostgresStore(data)) as store:
            assert store.connection.run(lambda session: session.link.pgconn.ssl_in_use)


def test_a_certificate_that_cannot_be_checked_is_refused(tool, encrypted):
    unknown = encrypted(sslmode="verify-full")
    refused(tool("list", data=unknown), "root certificate file", "try: give the server's", "FILE")
    another = {"sslmode": "verify-full", "sslrootcert": "system"}
    refused(tool("list", data=encrypted(**another)), "verify failed", "?sslrootcert=FILE")
    misnamed = encrypted(sslmode="verify-full", sslrootcert=CERTIFICATE)
    misnamed = misnamed.replace("@127.0.0.1", "@localhost")
    refused(tool("list", data=misnamed), "does not match", "try: write the host", "names it")


def test_an_unknown_host_is_named(tool):
    refused(tool("list", data="postgresql://no.such.host.invalid/x"), "host", "try: correct")


def test_a_role_that_does_not_exist_is_named(tool, postgres):
    refused(tool("list", data=postgres.url(user="nobody")), 'role "nobody"', "correct the user")


def test_too_many_connections_are_waited_for_and_then_named(tool, guarded, postgres):
    postgres.execute("alter role guarded connection limit 1")
    with psycopg.connect(guarded()):
        result = tool("list", data=guarded(), env={"ORDERS_LOCK_TIMEOUT": "0.2"})
    refused(result, "too many connections", "max_connections")


def test_whoever_may_not_connect_twice_looks_for_news_without_being_told(tool, guarded, postgres):
    postgres.execute("create schema alone authorization guarded")
    data = guarded(schema="alone")
    assert tool("place", "rope", "--defer", data=data).returncode == 0
    postgres.execute("alter role guarded connection limit 1")
    assert "1 delivered" in tool("worker", "--until-idle", "0.1", data=data).stderr
    assert "rope" in done(tool("watch", *FROM_START, data=data))
    postgres.execute("drop schema alone cascade")


def test_a_hint_and_the_start_page_show_no_password(tool, guarded):
    data = guarded("wr0ng")
    result = tool("--data", data, "lst")
    assert "wr0ng" not in result.stderr + result.stdout
    assert "guarded@" in result.stderr
    result = tool(data=data)
    assert result.returncode == 0
    assert "wr0ng" not in result.stderr + result.stdout


def test_a_copy_of_a_store_that_is_written_to_shows_no_password(tool, guarded, postgres, tmp_path):
    postgres.execute("create schema busy authorization guarded")
    data = guarded(schema="busy")
    assert tool("place", "rope", data=data).returncode == 0
    (tmp_path / "busy.py").write_text("""
from orders.tools import copy
copy.ROUNDS = 0
def install(app): pass
""")
    result = tool("--plugin", "busy", "copy", data, "moved")
    assert "was written to meanwhile" in result.stderr
    assert "ssw0rd" not in result.stderr
    postgres.execute("drop schema busy cascade")


def test_a_command_to_try_names_the_store_without_its_password(tool, url):
    data = url.replace("postgres@", f"postgres:{SECRET}@")
    result = tool("--data", data, "show", "nobody")
    refused(result, "try: orders --data", "postgres@", "list")
    assert SECRET not in result.stderr


def test_without_psycopg_the_extra_is_named():
    script = "import sys; sys.modules['psycopg'] = None; from orders.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", script, "list"],
        capture_output=True,
        text=True,
        env={**os.environ, "ORDERS_DATA": "postgresql://localhost/shop"},
    )
    refused(result, "needs psycopg", 'try: pip install "orders[postgres]"')


def test_a_newer_schema_is_left_alone(tool, url, postgres):
    assert tool("place", "rope", data=url).returncode == 0
    with closing(PostgresStore(url)) as store:
        store.connection.rows("update meta set version = 99 returning 1")
    for command in (["list"], ["place", "rope"], ["doctor", "--repair"]):
        refused(tool(*command, data=url), "version 99", "try: update orders")


def test_a_schema_of_something_else_is_left_untouched(tool, postgres):
    postgres.execute("create schema another; create table another.orders (mine text)")
    result = tool("place", "rope", data=postgres.url(schema="another"))
    refused(result, "tables of something else", "choose another schema: ?schema=NAME")
    tables = "select tablename from pg_tables where schemaname = 'another'"
    assert postgres.execute(tables) == [("orders",)]


def test_a_schema_may_have_any_name(tool, postgres):
    name = """x"; drop table 'y' --%20"""
    data = postgres.url(schema=name.replace('"', "%22").replace(" ", "%20").replace("%20%", "%25"))
    assert "rope" in tool("place", "rope", data=data).stdout
    assert "rope" in done(tool("list", data=data))


def test_whoever_may_only_read_can_look(tool, url, postgres, guarded):
    assert tool("place", "rope", data=url).returncode == 0
    schema = url.partition("schema=")[2]
    postgres.execute(f"grant usage on schema {schema} to guarded")
    postgres.execute(f"grant select on all tables in schema {schema} to guarded")
    data = guarded(schema=schema)
    for command in ("list", "log", "stats", "deliveries", "export"):
        assert "rope" in done(tool(command, data=data)) or command == "deliveries"
    refused(tool("place", "lamp", data=data), "nothing was stored", "permission denied")
    assert done(tool("list", data=url)).count("\n") == 1


def test_an_order_that_another_transaction_keeps_locked_is_waited_for_in_vain(tool, url, send):
    (order_id,) = send(PlaceOrder(("rope",)), data=url)
    with psycopg.connect(url.partition("?")[0]) as other:
        other.execute(f"select from {url.partition('schema=')[2]}.orders for update")
        result = tool("ship", order_id, data=url, env={"ORDERS_LOCK_TIMEOUT": "0.1"})
        refused(result, "busy for 0.1 s", "held by another transaction", "ORDERS_LOCK_TIMEOUT")
    assert tool("ship", order_id, data=url).returncode == 0


@pytest.fixture
def standby(postgres):
    """A server that follows ours and can only be read."""
    replica = postgresql.Server.__new__(postgresql.Server)
    replica.__dict__.update(postgres.__dict__)
    replica.port = postgresql.free_port()
    source = f"host=127.0.0.1 port={postgres.port} user={postgresql.USER}"
    postgres.run("pg_basebackup", "-D", "standby", "-R", "-c", "fast", "-d", source)
    replica.data = "standby"
    replica.start()
    yield replica
    replica.stop()


@pytest.mark.long
def test_a_standby_is_read_and_not_written(tool, url, postgres, standby):
    left = tool("place", "rope", data=url, env={"ORDERS_FAULT": "before-delivery"})
    assert left.returncode == -9  # its delivery is for a command that may write
    data = url.replace(f":{postgres.port}/", f":{standby.port}/")
    for _ in range(200):  # until it has caught up
        if "rope" in tool("list", data=data).stdout:
            break
    for command in (["list"], ["log"], ["stats"], ["export"], ["watch", *FROM_START]):
        assert "rope" in done(tool(*command, data=data))
    assert "read-only standby" in done(tool("doctor", data=data))
    refused(tool("place", "lamp", data=data), "read-only standby", "URL of the primary")
