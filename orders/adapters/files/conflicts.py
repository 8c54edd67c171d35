"""Refuses what somebody else was quicker with, while nobody else can write."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from ...application.store import Change, Claim, Commit, DeliveryKey, Match
from ...errors import AlreadySettled, Conflict, KeyTaken
from .ledger import Entered, Ledger
from .line import Position
from .log import EventLog
from .matching import containing
from .orders import Orders


def check_orders(changes: Sequence[Change], orders: Orders, end: Position) -> None:
    """Refuse changes of orders that somebody else changed first, and keys used before.

    The log ends at `end`.

    Raises:
        Conflict: an order has not the version that a change expects.
        KeyTaken: the key of a new order belongs to another one.
    """
    if not changes:
        return
    new = [change.state for change in changes if not change.expected]
    are_new = bool(new) and orders.unknown(new, end)
    for change in changes:
        if change.expected or not are_new:
            known = orders.find(change.state.id)
            if (actual := known.version if known else 0) != change.expected:
                raise Conflict(change.state.id, change.expected, actual)
    keys = {change.state.id: change.key for change in changes if change.key is not None}
    if keys:
        taken = orders.with_keys(keys.values())
        for order_id, key in keys.items():
            first = taken.setdefault(key, order_id)
            if first != order_id:
                raise KeyTaken(key, first)


def check_deliveries(commit: Commit, log: EventLog) -> None:
    """Refuse to record for the second time what came of a delivery.

    Raises:
        AlreadySettled: an outcome is not pending any more, or a reaction was recorded.
    """
    for outcome in commit.outcomes:
        if not log.is_pending(outcome.key):
            raise AlreadySettled(*outcome.key)
    for reaction in commit.reactions:
        wanted = containing(Match(subscriber=reaction.subscriber))
        for entry in log.read(Position(*commit.seen), wanted=wanted):
            if any(delivery.key == reaction.key for delivery in entry.line.deliveries):
                raise AlreadySettled(*reaction.key)


def claimable(
    claims: Iterable[Claim],
    ledger: Ledger,
    accounts: Mapping[DeliveryKey, Entered],
    is_abandoned: Callable[[str | None], bool],
) -> dict[DeliveryKey, Position]:
    """Return those deliveries that stand as they were found, and where their events stand.

    Args:
        claims: what is to be claimed.
        ledger: what is pending.
        accounts: what is settled; may be empty where nothing failed is claimed.
        is_abandoned: tells whether the owner of a lease is gone.
    """
    found: dict[DeliveryKey, Position] = {}
    for delivery, _ in claims:
        key = delivery.key
        if delivery.status != "pending":
            if (account := accounts.get(key)) and account.delivery == delivery:
                found[key] = account.first
            continue
        known = ledger.find(key)
        if known and known.delivery == delivery and is_abandoned(known.owner):
            found[key] = known.place
    return found
