"""Where a store is: what its URL says, and what may be shown of it."""

from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import msgspec
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from ...errors import StoreUnreachable
from ...settings import without_password

SCHEMA = "orders"
LONGEST = 63  # bytes of a name in PostgreSQL

# A machine that vanished is noticed after 20 seconds: where there is no `tcp_user_timeout`, after
# 10 + 3 * 5, as long as nothing that was sent waits to be acknowledged.
KEEPALIVES = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # milliseconds
    "connect_timeout": 10,
    "fallback_application_name": "orders",
}


class Address(msgspec.Struct, frozen=True):
    """A server, a database and a schema in it.

    Attributes:
        location: the URL without its password.
        schema: where the tables are.
        parameters: for libpq, the password among them.
    """

    location: str
    schema: str
    parameters: dict[str, Any]

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Return what a URL says.

        Raises:
            StoreUnreachable: it is no URL of a store.
        """
        location = without_password(url)
        hint = "postgresql://USER@HOST:PORT/DATABASE"
        try:
            parts = urlsplit(url)
            query = parse_qsl(parts.query, keep_blank_values=True)
            rest = urlencode([pair for pair in query if pair[0] != "schema"], quote_via=quote)
            parameters = conninfo_to_dict(urlunsplit(parts._replace(query=rest)))
        except (ProgrammingError, ValueError):  # whose text may have the password
            raise StoreUnreachable(location, "it is no URL of a database", hint) from None
        schema = dict(query).get("schema", SCHEMA)
        if not 0 < len(schema.encode()) <= LONGEST or "\0" in schema or schema.startswith("pg_"):
            raise StoreUnreachable(location, f"{schema!r} is no name of a schema", "?schema=orders")
        return cls(location, schema, {**KEEPALIVES, **parameters})

    @property
    def secrets(self) -> list[str]:
        """What must not be shown, as it is and as the URL has it."""
        names = ("password", "sslpassword")
        known = [str(self.parameters[name]) for name in names if self.parameters.get(name)]
        return [form for text in known for form in (text, quote(text, safe=""), unquote(text))]

    def __repr__(self) -> str:
        return f"Address({self.location!r})"
