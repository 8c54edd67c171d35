"""The schema: made by whoever comes first, brought up to date by whoever is newer."""

from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors, sql

from ...errors import StoreUnreachable
from .address import Address

MIGRATIONS = ["schema.sql"]  # files; the first makes version 1, each other the next


def check_version(version: int, address: Address) -> bool:
    """Return whether the schema is of this version; else it is older.

    Raises:
        StoreUnreachable: it is newer.
    """
    if version > len(MIGRATIONS):
        raise StoreUnreachable(
            address.location,
            f'schema "{address.schema}" has version {version}, of a newer version of orders',
            "update orders: pip install --upgrade orders",
        )
    return version == len(MIGRATIONS)


def bring_up_to_date(link: psycopg.Connection[tuple[Any, ...]], address: Address) -> None:
    """Make the schema, or migrate it, in one transaction; others wait meanwhile.

    Raises:
        StoreUnreachable: it is newer, not ours, or cannot be made.
    """
    schema = sql.Identifier(address.schema)
    try:
        with link.transaction():
            link.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (address.schema,))
            link.execute(sql.SQL("set local search_path to {}").format(schema))
            version = _version(link, address)
            if not _exists(link, address):  # to ask for it where it is takes the right to make it
                link.execute(sql.SQL("create schema {}").format(schema))
            for migration in MIGRATIONS[version or 0 :]:
                link.execute((Path(__file__).parent / migration).read_text("utf-8"))
            link.execute(
                """
                insert into meta (version, era, system_identifier)
                values (%s, 1, (select system_identifier from pg_control_system()))
                on conflict (is_only) do update set version = excluded.version
                """,
                (len(MIGRATIONS),),
            )
    except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction) as error:
        user = link.info.user
        raise StoreUnreachable(
            address.location,
            f'there is no schema "{address.schema}" of this version, and {user} may not make it',
            f"have it made by: create schema {schema.as_string()} authorization {user}",
        ) from error
    except errors.DuplicateTable as error:
        raise StoreUnreachable(
            address.location,
            f'schema "{address.schema}" has tables of something else; it was left untouched',
            "choose another schema: ?schema=NAME",
        ) from error


def raise_era(
    link: psycopg.Connection[tuple[Any, ...]], era: int, cluster: int, *, is_standby: bool
) -> int:
    """Begin another era, as the schema was restored into another cluster; return it."""
    if not is_standby:
        link.execute(
            "update meta set era = era + 1, system_identifier = %s where era = %s", (cluster, era)
        )
    return era + 1


def _exists(link: psycopg.Connection[tuple[Any, ...]], address: Address) -> bool:
    query = "select from pg_namespace where nspname = %s"
    return link.execute(query, (address.schema,)).fetchone() is not None


def _version(link: psycopg.Connection[tuple[Any, ...]], address: Address) -> int | None:
    row = link.execute("select to_regclass('meta')").fetchone()
    if row is None or row[0] is None:
        return None
    found = link.execute("select version from meta").fetchone()
    if found is not None:
        check_version(found[0], address)
    return found[0] if found else None
