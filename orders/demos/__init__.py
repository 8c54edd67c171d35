"""Scripted runs, one file each; every one checks that what it shows has happened.

Nothing is imported here: plugins and racers, which start often, need none of the stage.
"""

SCENARIOS = {
    "tour": "the whole idea in a minute: five scenes, read from the store",
    "article": "two orders, two notices, then the list: the article's run",
    "simple": "the same in twenty lines: pubsub and a dict",
    "subscriber": "one more feature, by calls and by events: the lines that change",
    "unit-of-work": "a command returns a value; events follow the commit, or never",
    "session": "override a dependency; add, commit, roll back an order",
    "failure": "a subscriber fails, is shown, is repaired, is delivered to again",
    "poison": "a message that always fails: a dead letter; what follows it flows",
    "system": "followers of the log count items, in one thread and in many",
    "replay": "a projection with a bug, rebuilt; nobody is notified again",
    "crash": "kill -9 between commit and notice: the next command delivers",
    "race": "eight processes at once, on plain TinyDB and on this store",
    "key": "eight processes, one key, one order",
    "cluster": "real servers, workers, a relay: killed one by one while orders flow",
    "plugin": "refunds: command, event, projection and policy in one module",
}
