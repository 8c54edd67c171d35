"""Errors say what is wrong, and cross the border of a process as they are."""

import multiprocessing
import pickle
from collections.abc import Sequence
from functools import partial
from inspect import isfunction
from pathlib import Path
from typing import get_type_hints

import pytest

from orders import Order, OrderShipped, errors
from orders.domain.order import evolve
from orders.errors import ForbiddenMove, InvalidOrder, OrdersError

GIVEN = {  # for a parameter of this type
    str: "what",
    str | None: "what to try",
    int: 2,
    float: 10.0,
    bool: False,
    type: int,
    object: OrderShipped(order_id="1"),
    BaseException: InvalidOrder("no"),
    Path: Path("data"),
    Path | str: Path("data"),
    Sequence[str]: ["one", "two"],
    Sequence[tuple[int, str]]: [(1, "no items")],
}


def classes(base=OrdersError):
    yield base
    for kind in base.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield from classes(kind)


def known(error):
    """Return all that an error says; errors within it are equal when they say the same."""
    attributes = {
        name: known(value) if isinstance(value, BaseException) else value
        for name, value in vars(error).items()
    }
    return type(error), str(error), error.args, attributes


@pytest.mark.parametrize("kind", list(classes()))
def test_every_error_pickles_and_unpickles_as_it_is(kind):
    hints = get_type_hints(kind.__init__) if isfunction(kind.__init__) else {}
    given = {name: GIVEN[hint] for name, hint in hints.items() if name != "return"}
    error = kind(**given) if given else kind("what is wrong")
    error.add_note("seen on Monday")
    twin = pickle.loads(pickle.dumps(error))
    assert known(twin) == known(error)
    assert str(twin)


def call(work):
    return work()


@pytest.mark.parametrize(
    ("work", "kind", "attributes"),
    [
        (partial(evolve, None, OrderShipped(order_id="1")), ForbiddenMove, {"order_id": "1"}),
        (partial(Order.place, []), InvalidOrder, {}),
    ],
)
def test_a_pool_of_processes_hands_back_the_error(work, kind, attributes):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        with pytest.raises(kind) as failure:
            pool.map_async(call, [work]).get(timeout=60)
        assert attributes.items() <= vars(failure.value).items()
        assert pool.map(str, ["the pool goes on"]) == ["the pool goes on"]
