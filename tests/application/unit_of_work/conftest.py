"""What is there before a unit of work."""

import pytest
from sending import CrateFilled, place, reporting_to

from orders import bootstrap


@pytest.fixture
def app(sales, failures):
    """The order system in memory, its notices kept by `sales`."""
    with bootstrap(":memory:", notifier=sales, on_failure=reporting_to(failures)) as app:
        yield app


@pytest.fixture
def placed(app, sales):
    """The id of an order placed long ago."""
    order_id = app.bus.send(place())
    sales.notices.clear()
    return order_id


@pytest.fixture
def crates(app):
    """The crates that subscribers heard of."""
    crates = []
    app.bus.subscribe(CrateFilled, lambda event: crates.append(event.crate), name="crates")
    return crates


@pytest.fixture
def other(app, sales):
    """Somebody else on the same store."""
    return bootstrap(store=app.store, notifier=sales)
