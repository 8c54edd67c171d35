"""Times as people type and read them, and as programs read them."""

import re
from datetime import UTC, datetime, timedelta

_AGE = r"(\d{1,6})\s*(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|weeks?)(\s+ago)?"
_DAYS = {"now": "0s", "yesterday": "1d"}
TIMES = 'write 2026-11-21, 2026-11-21T09:30, 10m, 3d, "10 minutes ago" or yesterday'
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_time(text: str, now: datetime) -> datetime:
    """Return the UTC time that `text` means: ISO 8601, or an age like 90s, 10m, 2h, 3d, 1w.

    An age may be spelt out: 10 minutes ago, 1 day ago, yesterday. ISO text without a zone is
    local time; without a time of day it is midnight.

    Raises:
        ValueError: it is neither.
    """
    try:
        plain = text.strip()
        if age := re.fullmatch(_AGE, _DAYS.get(plain.lower(), plain), re.IGNORECASE | re.ASCII):
            return now - timedelta(**{_UNITS[age[2][0].lower()]: int(age[1])})
        return datetime.fromisoformat(plain).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a time") from None


def age(time: datetime, now: datetime) -> str:
    """Return how long ago `time` is, in its largest unit: ``now``, ``10m ago``, ``3d ago``."""
    seconds = int((now - time).total_seconds())
    for length, unit in ((604_800, "w"), (86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")):
        if seconds >= length:
            return f"{seconds // length}{unit} ago"
    return "now"


def iso(time: datetime) -> str:
    """Return a UTC time as ISO 8601 with microseconds and a Z."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
