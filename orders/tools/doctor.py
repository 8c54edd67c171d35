"""The health of a store: what is well, what is not, and what of that can be repaired.

The log is the truth. What only the engine can tell, it is asked; here the projections are
folded anew and compared, and what waits to be delivered is counted. Nothing is thrown away
without a copy.
"""

import gc
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice

from ..application import positions
from ..application.store import Account, Finding, Status
from ..bootstrap import App
from ..domain.text import count
from ..errors import OrdersError
from ..projections.follower import waiting_for
from ..projections.policy import Policy
from ..projections.projection import Projection
from ..projections.replay import replay

CHECKPOINT = "orders checkpoint"
REPAIR = "orders doctor --repair"  # as engines name it
MOST = 5  # dead letters that are named at once
SHORT_ID = 8  # characters of an id that tell it from others


def examine(app: App) -> list[Finding]:
    """Look at everything; change nothing.

    Meanwhile no garbage is collected: what is folded has no cycles, and to search all of it for
    some, again and again as it grows, takes a fifth of the time.
    """
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        return _examine(app)
    finally:
        if was_collecting:
            gc.enable()


def _examine(app: App) -> list[Finding]:
    findings = list(_guarded("store", app.store.check))
    if any(finding.subject in {"lock", "log"} and not finding.is_well for finding in findings):
        return findings  # what follows from the log would only say so again
    own = list(_guarded("projections", lambda: _projections(app)))
    said = "; ".join(finding.text for finding in own)
    findings = [f for f in findings if f.subject != "projections" or f.text not in said] + own
    for name, make in app.policies.items():
        findings += _guarded("policies", partial(_policy, app, name, make))
    findings += _guarded("deliveries", lambda: _deliveries(app))
    findings += _guarded("relays", lambda: _relays(app))
    return findings


def repair(app: App) -> Iterator[str]:
    """Repair what can be repaired; yield what was done, a sentence each.

    Raises:
        OrdersError: the log is damaged, which only a backup can repair, or the store is busy.
    """
    app.store.head()  # which is busy or not, once for all that follows
    harmed = [name for name, make in app.projections.items() if not _is_right(app, make)]
    yield from app.store.repair()
    for name in harmed:
        try:
            deque(replay(app.store, [app.projections[name]], keep=True), maxlen=0)
        except OrdersError as error:  # a foreign file; the rest can still be repaired
            app.warn(str(error))
        else:
            yield f"made the projection {name} anew from the log"
    if late := app.deliveries.recover():
        yield f"made {count(late, 'delivery')} that processes left pending when they died"
    yield from _react(app)


def _react(app: App) -> Iterator[str]:
    """Have the policies react to what waits for them; yield how far they came."""
    before = _waiting(app)
    for error in app.react(at_any_cost=True):
        app.warn(str(error))
    after = _waiting(app)
    for name, number in before.items():
        if reacted := number - after.get(name, number):
            yield f"had {name} react to {count(reacted, 'event')}"


def _waiting(app: App) -> dict[str, int]:
    """Return how many events wait for each policy that copes with the log."""
    found = {}
    for name, make in app.policies.items():
        with suppress(OrdersError):  # `react` says why
            found[name] = len(waiting_for(app.store, make))
    return found


def _is_right(app: App, make: Callable[[], Projection]) -> bool:
    try:
        return all(one.is_right for one in replay(app.store, [make], keep=False))
    except OrdersError:
        return False


def _guarded(subject: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Run a check; what it cannot read is not well."""
    try:
        yield from check()
    except OrdersError as error:
        yield Finding("bad", subject, str(error), error.hint or "")


def _projections(app: App) -> Iterator[Finding]:
    replayed = list(replay(app.store, app.projections.values(), keep=False))
    if wrong := [f"{one.name} {one.found}" for one in replayed if not one.is_right]:
        yield Finding("bad", "projections", "; ".join(wrong), "orders replay")
    else:
        kept = sum(one.found == "equal" for one in replayed)
        yield Finding("ok", "projections", f"{kept} kept, equal to the fold of the log")


def _policy(app: App, name: str, make: Callable[[], Policy]) -> Iterator[Finding]:
    if events := waiting_for(app.store, make):
        text = f"{name} has yet to react to {count(len(events), 'event')}"
        yield Finding("waiting", "policies", text, CHECKPOINT)


def _deliveries(app: App) -> Iterator[Finding]:
    accounts = list(app.store.deliveries("pending", "failed", "dead"))
    if not accounts:
        yield Finding("ok", "deliveries", "none is pending or failed")
    for is_known in (True, False):
        some = [account for account in accounts if _is_known(app, account) is is_known]
        yield from _failed(some, "orders" if is_known else "orders --plugin NAME")
        if is_known:
            yield from _pending(some, is_deferring=app.unit_of_work.is_deferring)
        else:
            yield from _unknown(some)


def _failed(accounts: Iterable[Account], command: str) -> Iterator[Finding]:
    failed, dead = _in_state(accounts, "failed"), _in_state(accounts, "dead")
    if failed:
        yield Finding("bad", "deliveries", f"{_whose(failed)} failed", f"{command} retry --all")
    if dead:
        ids = dict.fromkeys(account.delivery.event[:SHORT_ID] for account in dead)
        cure = " ".join((command, "retry", *islice(ids, MOST)))
        yield Finding("bad", "deliveries", f"{_whose(dead)} given up: dead letters", cure)


def _pending(accounts: Iterable[Account], *, is_deferring: bool) -> Iterator[Finding]:
    pending = _in_state(accounts, "pending")
    left = [account for account in pending if account.is_abandoned]
    deferred = [account for account in left if account.is_deferred or is_deferring]
    if deferred:
        text = f"{_whose(deferred)} wait for a worker"
        yield Finding("waiting", "deliveries", text, "orders worker --until-idle 1")
    if abandoned := [account for account in left if account not in deferred]:
        text = f"{_whose(abandoned)} left by processes that died"
        yield Finding("bad", "deliveries", text, CHECKPOINT)
    if under_way := [account for account in pending if not account.is_abandoned]:
        text = f"{_whose(under_way)} wait for a process that is at work"
        yield Finding("waiting", "deliveries", text)


def _unknown(accounts: Iterable[Account]) -> Iterator[Finding]:
    if pending := _in_state(accounts, "pending"):
        text = f"{_whose(pending)} wait for a process that has this subscriber"
        yield Finding("waiting", "deliveries", text, "orders --plugin NAME checkpoint")


def _relays(app: App) -> Iterator[Finding]:
    """Say how far relays are behind, as far as the store knows; no server is asked."""
    for position in positions.positions(app.store):
        where = f"stream {position.stream} of {position.location}"
        if behind := positions.behind(app.store, position):
            text = f"{where} is {count(behind, 'event')} behind; if that relay is not wanted any"
            cure = f"orders relay {position.url} --stream {position.stream}"
            yield Finding(
                "waiting", "relays", f"{text} more, remove the snapshot {position.name}", cure
            )
        else:
            yield Finding("ok", "relays", f"{where} has every event")


def _in_state(accounts: Iterable[Account], status: Status) -> list[Account]:
    return [account for account in accounts if account.delivery.status == status]


def _is_known(app: App, account: Account) -> bool:
    name = account.delivery.subscriber
    return app.bus.subscriber(name) is not None or name in app.policies


def _whose(accounts: Iterable[Account]) -> str:
    """Return how many deliveries these are, and to whom: ``3 to mail_customer``."""
    numbers = Counter(account.delivery.subscriber for account in accounts)
    return ", ".join(f"{number:,} to {name}" for name, number in numbers.items())
