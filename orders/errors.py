"""Everything that can be refused: what and why in one sentence, and a hint what to try.

    OrdersError
      WiringError        the program is put together wrongly: UnknownTopic, NoHandler, ...
      WrongName          a stream, consumer or subject cannot be called that
      InvalidOrder       the order breaks a rule
      ForbiddenMove      the order's state forbids the move
      OrderNotFound, AmbiguousOrder
      UnusableChannel    notices cannot be sent there; NoticeRefused: this one could not be
      Conflict           somebody else changed the order first; KeyTaken: the key is used up
      AlreadySettled     somebody else has recorded what came of a delivery
      ImportRefused      the file has bad lines
      Interrupted        somebody pressed Ctrl-C
      FollowerError      a follower of the log has stopped
      StoreError         the store cannot be used: StoreBusy, LogDamaged, ForeignFile, ...

An error may carry text that a user typed: whoever prints it makes it safe first.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


class OrdersError(Exception):
    """Root of every error that this package raises on purpose.

    Attributes:
        hint: what to try, if anybody can tell; a command, or words that follow "try:".
    """

    hint: str | None = None

    def __init__(self, what: str = "", hint: str | None = None) -> None:
        super().__init__(what)
        self.hint = hint
        if hint:
            self.add_note(f"try: {hint}")  # which a traceback shows

    def __reduce__(self) -> tuple[Any, ...]:
        """Have it pickled as it is: to call the class with its message would not do."""
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[OrdersError], args: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class WiringError(OrdersError):
    """Messages, handlers or dependencies do not fit together; mostly found before anything runs."""


class DuplicateMessage(WiringError):
    """Two message classes claim one name or one topic."""

    def __init__(self, what: str, first: type, second: type) -> None:
        super().__init__(
            f"{what} of {second.__module__}.{second.__qualname__} is taken by"
            f" {first.__module__}.{first.__qualname__}",
            "choose another",
        )


class UnknownTopic(WiringError):
    """No event has this topic, or none that the glob matches."""

    def __init__(self, topic: str, known: Sequence[str]) -> None:
        super().__init__(f"no event has the topic {topic!r}; known are {', '.join(known)}")


class WrongPayload(WiringError):
    """What was sent is not the message that belongs there."""


class EndlessLoop(WiringError):
    """Messages cause each other in a circle."""

    def __init__(self, message: type, cause: type, hops: int) -> None:
        super().__init__(
            f"{message.__name__}, caused by {cause.__name__}, is the end of a chain of {hops}"
            " events that cause each other",
            "break the circle",
        )


class NoHandler(WiringError):
    """A command was sent that no handler is registered for."""

    def __init__(self, command: type) -> None:
        super().__init__(
            f"nothing handles {command.__name__}",
            f"register a handler with bus.register({command.__name__}, handler)",
        )


class DuplicateHandler(WiringError):
    """A command has exactly one handler, and this one has it already."""

    def __init__(self, command: type, first: str, second: str) -> None:
        super().__init__(f"{command.__name__} is handled by {first}; {second} cannot handle it too")


class DuplicateSubscriber(WiringError):
    """Two subscribers claim one name, so their deliveries could not be told apart."""

    def __init__(self, name: str) -> None:
        super().__init__(f"a subscriber named {name!r} exists", "give this one name='...'")


class UnsuppliedParameter(WiringError):
    """A handler asks for a dependency that nobody supplies."""

    def __init__(self, handler: str, parameter: str, supplied: Sequence[str]) -> None:
        super().__init__(
            f"nothing supplies the parameter {parameter!r} of {handler};"
            f" supplied are {', '.join(supplied) or 'none'}",
            f"add {parameter}=... at the wiring",
        )


class PluginFailed(OrdersError):
    """A plugin cannot be imported, or cannot be installed."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"plugin {name} cannot be used: {reason}",
            "correct it, or leave it out of ORDERS_PLUGINS and --plugin",
        )


class WrongName(OrdersError):
    """What was given is no name; on the command line, wrong use."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"{name!r} is no name of a {what}", "take letters, digits, - and _")


class InvalidOrder(OrdersError):
    """An order breaks a rule of the domain."""


class ForbiddenMove(OrdersError):
    """The order's state does not allow the move."""

    def __init__(self, order_id: str, status: str, wanted: str, allowed: str) -> None:
        self.order_id, self.status = order_id, status
        super().__init__(
            f"order {order_id} cannot be {wanted}: it is {status}, not {allowed}",
            f"orders show {order_id}",
        )


class OrderNotFound(OrdersError):
    """No order has this id, or begins with it."""

    def __init__(self, order_id: str) -> None:
        self.order_id = order_id
        super().__init__(f"no order {order_id!r}", "orders list")


class AmbiguousOrder(OrdersError):
    """Several orders begin with what was given."""

    def __init__(self, prefix: str, candidates: Sequence[str]) -> None:
        self.prefix, self.candidates = prefix, tuple(candidates)
        super().__init__(
            f"{prefix!r} fits {len(self.candidates)} orders", "type more of the id, as listed"
        )


class UnusableChannel(OrdersError):
    """Notices cannot be sent where the settings say; found before anything runs."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"ORDERS_NOTIFY cannot be used: {reason}", "orders explain environment")


class NoticeRefused(OrdersError):
    """A notice could not be handed over; its delivery has failed, and can be tried again."""

    def __init__(self, channel: str, reason: str) -> None:
        self.channel = channel
        super().__init__(f"{channel} did not take the notice: {reason}")


class Conflict(OrdersError):
    """Two writers changed one version of an order; this one came second."""

    def __init__(self, order_id: str, expected: int, actual: int) -> None:
        self.order_id, self.expected, self.actual = order_id, expected, actual
        super().__init__(
            f"order {order_id} was changed by somebody else (version {actual}, not {expected})",
            "look at it again and repeat the command",
        )


class KeyTaken(OrdersError):
    """An order with this idempotency key was stored meanwhile; it is the one to use."""

    def __init__(self, key: str, order_id: str) -> None:
        self.key, self.order_id = key, order_id
        super().__init__(f"key {key!r} belongs to order {order_id}")


class AlreadySettled(OrdersError):
    """Somebody else has recorded what came of this delivery."""

    def __init__(self, event_id: str, subscriber: str) -> None:
        self.event_id, self.subscriber = event_id, subscriber
        super().__init__(f"the delivery of event {event_id} to {subscriber} is settled already")


class ImportRefused(OrdersError):
    """The file has lines that cannot be imported, so nothing was."""

    def __init__(self, path: Path, problems: Sequence[tuple[int, str]], total: int) -> None:
        self.path, self.problems, self.total = path, tuple(problems), total
        count = f"{total} bad line{'s' if total > 1 else ''}"
        them = "them" if total > 1 else "it"
        super().__init__(
            f"{count} in {path}: nothing was imported", f"correct {them}, then import it again"
        )

    @property
    def lines(self) -> list[str]:
        """The first bad lines, each as ``FILE:LINE: reason``."""
        return [f"{self.path}:{line}: {problem}" for line, problem in self.problems]


class Interrupted(OrdersError):
    """Somebody pressed Ctrl-C; the message says what was done by then."""


class FollowerError(OrdersError):
    """A follower of the log has stopped; the others go on."""

    def __init__(self, follower: str, stage: str, event: object, error: BaseException) -> None:
        self.follower, self.stage, self.event, self.error = follower, stage, event, error
        at = f" {type(event).__name__} {getattr(event, 'id', '')}" if event is not None else ""
        of_the_cause = error.hint if isinstance(error, OrdersError) else None
        super().__init__(
            f"follower {follower} failed {stage}{at}: {describe(error)}",
            of_the_cause or "remove the cause and start it again; it resumes there",
        )


class StoreError(OrdersError):
    """The store cannot be used as it is."""


class StoreUnavailable(StoreError):
    """The operating system refuses access to the store."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"cannot use {path}: {reason}", "choose another directory with --data")


class StoreUnreachable(StoreError):
    """The server that keeps the store cannot be reached, or refuses what we ask."""

    def __init__(self, location: str, reason: str, hint: str | None = None) -> None:
        self.location = location
        super().__init__(f"cannot use {location}: {reason}", hint)


class ForeignFile(StoreError):
    """A file stands where the store's own should be."""

    def __init__(
        self,
        path: Path,
        reason: str,
        hint: str = "move it away, or choose another directory with --data",
    ) -> None:
        self.path = path
        super().__init__(f"{path} {reason}; it was left untouched", hint)


class ChangedInUse(ForeignFile):
    """The log is not what this application has read of it; another one sees it as it is now."""

    def __init__(self, log: Path, how: str) -> None:
        super().__init__(log, f"was {how} while in use", "orders doctor")


class LogDamaged(StoreError):
    """A record of the log is not what was written."""

    def __init__(self, log: Path | str, number: int, reason: str) -> None:
        self.number = number
        # A file that some other program wrote differs from its first line on.
        other = "choose another --data if it is no log of orders, else " if number == 1 else ""
        super().__init__(
            f"{log}:{number}: {reason}; nothing was changed",
            f"{other}restore the file from a backup",
        )


class UnreadableMessage(StoreError):
    """A record of the log is sound, but this program cannot read one of its messages."""

    def __init__(self, log: Path | str, number: int, reason: str) -> None:
        self.number = number
        super().__init__(
            f"{log}:{number}: {reason}; nothing was changed, and the log is sound",
            "use the version of orders, or the plugin, that wrote it",
        )


class NotStored(StoreError):
    """The commit was not stored; or, where the engine cannot tell, perhaps it was."""

    def __init__(
        self,
        location: Path | str,
        reason: str,
        hint: str | None = None,
        *,
        is_certain: bool = True,
    ) -> None:
        self.is_certain = is_certain
        stored, cure = "nothing was stored", "make room or repair the disk, then repeat the command"
        if not is_certain:
            stored, cure = (
                "it may be stored all the same",
                "repair the disk, and look before you repeat",
            )
        super().__init__(f"could not write {location}: {reason}; {stored}", hint or cure)


class NotWritten(StoreError):
    """A file could not be replaced; it is as it was."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(
            f"could not write {path}: {reason}; the file is as it was",
            "choose another place, or make room",
        )


class StoreBusy(StoreError):
    """Another process kept the lock for longer than we wait."""

    def __init__(self, path: Path | str, seconds: float, holder: str) -> None:
        self.path, self.seconds, self.holder = path, seconds, holder
        super().__init__(
            f"the store was busy for {seconds:g} s: {path} is held by {holder}",
            "wait for that process or end it, or allow more seconds with ORDERS_LOCK_TIMEOUT",
        )


def describe(error: BaseException) -> str:
    """Return any error's class and text."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a stranger's error may be as broken as the stranger
        text = "it cannot say what it is"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
