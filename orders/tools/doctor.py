"""The health of a store: what is well, what is not, and what of that can be repaired.

The log is the truth. What only the engine can tell, it is asked; here the projections are
folded anew and compared, and what waits to be delivered is counted. Nothing is thrown away
without a copy.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial

from ..application.store import Account, Finding
from ..bootstrap import App
from ..domain.text import count
from ..errors import OrdersError
from ..projections.follower import waiting_for
from ..projections.policy import Policy
from ..projections.projection import Projection
from ..projections.replay import replay


def examine(app: App) -> list[Finding]:
    """Look at everything; change nothing."""
    findings = list(_guarded("store", app.store.check))
    if any(finding.subject in {"lock", "log"} and not finding.is_well for finding in findings):
        return findings  # what follows from the log would only say so again
    findings += _guarded("projections", lambda: _projections(app))
    for name, make in app.policies.items():
        findings += _guarded("policies", partial(_policy, app, name, make))
    findings += _guarded("deliveries", lambda: _deliveries(app))
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
        yield Finding(False, subject, str(error))


def _projections(app: App) -> Iterator[Finding]:
    replayed = list(replay(app.store, app.projections.values(), keep=False))
    if wrong := [f"{one.name} {one.found}" for one in replayed if not one.is_right]:
        text = f"{'; '.join(wrong)}; orders replay makes them anew"
        yield Finding(False, "projections", text)
    else:
        kept = sum(one.found == "equal" for one in replayed)
        yield Finding(True, "projections", f"{kept} kept, equal to the fold of the log")


def _policy(app: App, name: str, make: Callable[[], Policy]) -> Iterator[Finding]:
    if events := waiting_for(app.store, make):
        text = f"{name} has yet to react to {count(len(events), 'event')}; orders checkpoint does"
        yield Finding(True, "policies", text)


def _deliveries(app: App) -> Iterator[Finding]:
    accounts = list(app.store.deliveries("pending", "failed", "dead"))
    failed = [a for a in accounts if a.delivery.status == "failed"]
    dead = [a for a in accounts if a.delivery.status == "dead"]
    pending = [a for a in accounts if a.delivery.status == "pending"]
    known = [a for a in pending if _is_known(app, a)]
    if abandoned := [a for a in known if a.is_abandoned]:
        text = f"{_whose(abandoned)} left by processes that died; orders checkpoint makes them"
        yield Finding(False, "deliveries", text)
    if failed:
        yield Finding(False, "deliveries", f"{_whose(failed)} failed; try orders retry --all")
    if dead:
        yield Finding(
            False, "deliveries", f"{_whose(dead)} are dead letters; see orders deliveries"
        )
    if under_way := [a for a in known if not a.is_abandoned]:
        yield Finding(True, "deliveries", f"{_whose(under_way)} wait for a process that is at work")
    if unknown := [a for a in pending if not _is_known(app, a)]:
        text = (
            f"{_whose(unknown)} wait for a process that has this subscriber; is a plugin missing?"
        )
        yield Finding(True, "deliveries", text)
    if not accounts:
        yield Finding(True, "deliveries", "none is pending or failed")


def _is_known(app: App, account: Account) -> bool:
    name = account.delivery.subscriber
    return app.bus.subscriber(name) is not None or name in app.policies


def _whose(accounts: Iterable[Account]) -> str:
    """Return how many deliveries these are, and to whom: ``3 to mail_customer``."""
    numbers = Counter(account.delivery.subscriber for account in accounts)
    return ", ".join(f"{number:,} to {name}" for name, number in numbers.items())
