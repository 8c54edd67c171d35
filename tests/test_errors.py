"""Errors say what is wrong, and cross the border of a process as they are."""

import multiprocessing
import pickle
from functools import partial
from pathlib import Path

import pytest

from orders import Order, OrderShipped, errors
from orders.domain.order import evolve
from orders.errors import ForbiddenMove, InvalidOrder, OrdersError

HERE = Path("data")

MADE_OF = {
    errors.DuplicateMessage: ("the name", int, str),
    errors.UnknownTopic: ("order-creatd", ["order-created"]),
    errors.EndlessLoop: (int, str, 100),
    errors.NoHandler: (int,),
    errors.DuplicateHandler: (int, "first", "second"),
    errors.DuplicateSubscriber: ("sales",),
    errors.UnsuppliedParameter: ("pack", "tape", ["bus"]),
    errors.PluginFailed: ("shop", "no module named shop"),
    errors.ForbiddenMove: ("1", "shipped", "cancelled", "placed"),
    errors.OrderNotFound: ("1",),
    errors.AmbiguousOrder: ("1", ["11", "12"]),
    errors.Conflict: ("1", 1, 2),
    errors.KeyTaken: ("k1", "1"),
    errors.AlreadySettled: ("1", "sales"),
    errors.ImportRefused: (HERE, [(1, "no items")], 1),
    errors.FollowerError: ("sales", "on", OrderShipped(order_id="1"), InvalidOrder("no")),
    errors.StoreUnavailable: (HERE, "permission denied"),
    errors.ForeignFile: (HERE, "is no log"),
    errors.LogDamaged: (HERE, 5, "checksum"),
    errors.UnreadableMessage: (HERE, 5, "of a newer version"),
    errors.NotStored: (HERE, "no space left on device"),
    errors.NotWritten: (HERE, "no space left on device"),
    errors.StoreBusy: (HERE, 10.0, "process 5"),
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
    error = kind(*MADE_OF.get(kind, ("what is wrong",)))
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
