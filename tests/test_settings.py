"""What may be shown of the name of a store."""

import pytest

from orders.settings import without_password


@pytest.mark.parametrize(
    ("store", "shown"),
    [
        ("data", "data"),
        ("a:b@c", "a:b@c"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql://ada@host:5432/db?schema=x", "postgresql://ada@host:5432/db?schema=x"),
        ("postgresql://ada:pass@host/db", "postgresql://ada@host/db"),
        ("postgres://ada:p:a/s@s?@host/db", "postgres://ada@host/db"),
        ("postgresql:///db?user=ada&password=pass", "postgresql:///db?user=ada"),
        ("postgresql:///db?password=pass&schema=x", "postgresql:///db?schema=x"),
        ("postgresql:///db?sslpassword=pass&password=p", "postgresql:///db"),
        ("--data=postgresql://ada:pass@host/db", "--data=postgresql://ada@host/db"),
    ],
)
def test_a_store_is_named_without_its_password(store, shown):
    assert without_password(store) == shown
