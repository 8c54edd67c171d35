"""Finds messages by their ids, looking first where they are likely to stand."""

from collections.abc import Collection, Iterable, Mapping

from ...application.store import Match
from ...messaging.message import Message
from .ledger import Accounts
from .line import Position
from .log import EventLog
from .matching import containing
from .reader import Entry


def find_messages(log: EventLog, accounts: Accounts, ids: Collection[str]) -> Mapping[str, Message]:
    """Return those of these messages that the log has, by id."""
    wanted = set(ids)
    found = _of(log.at(_places(log, accounts, wanted)))
    if missing := wanted - found.keys():
        found |= _of(log.read(wanted=containing(Match(events=missing))))
    return {message_id: found[message_id] for message_id in wanted & found.keys()}


def _places(log: EventLog, accounts: Accounts, events: set[str]) -> set[Position]:
    """Return where some of these events are likely to stand: what is pending is looked up first."""
    with log.threads:
        log.position()
        found = {
            one.delivery.event: one.place
            for one in log.ledger().outstanding()
            if one.delivery.event in events
        }
        if found.keys() < events:
            found |= {
                known.delivery.event: known.first
                for known in accounts.by_key.values()
                if known.delivery.event in events
            }
    return set(found.values())


def _of(entries: Iterable[Entry]) -> dict[str, Message]:
    return {message.id: message for entry in entries for message in entry.line.messages}
