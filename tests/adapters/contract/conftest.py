"""A store of each engine, opened by one and by another."""

from contextlib import ExitStack, closing

import pytest
from storing import ENGINES, opener


@pytest.fixture(params=ENGINES)
def opened(request, tmp_path):
    """A function that opens the store once more, as another terminal would."""

    def new_schema():  # only where it is needed, for on some platforms there is no server
        return request.getfixturevalue("new_schema")()

    open_store = opener(request.param, tmp_path, new_schema)
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(open_store()))


@pytest.fixture
def store(opened):
    return opened()


@pytest.fixture
def another(opened):
    """A second handle on the same store."""
    return opened()
