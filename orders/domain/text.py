"""Text that is safe to show: the one gate between people's data and a terminal.

A name may hold escape sequences that repaint the screen, bidirectional overrides that
reverse what stands after them, or bytes that were never text. `safe` makes them visible
instead of obeyed, and every output edge calls it; `unsafe_character` tells the domain
what to refuse in the first place.
"""

import re

# C0 and C1 controls, line and paragraph separators, bidi embeddings and overrides, surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def unsafe_character(text: str) -> str | None:
    """Name the first character that must not be stored (as ``U+001B``), or None."""
    if text.isprintable():  # which none of them is
        return None
    match = _UNSAFE.search(text)
    return f"U+{ord(match.group()):04X}" if match else None


def safe(text: str) -> str:
    """Return `text` on one line with every control, bidi or surrogate character escaped."""
    return _UNSAFE.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def safe_json(text: str) -> str:
    """Return one line of JSON with what JSON itself need not escape escaped as well."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def shorten(text: str, width: int = 60) -> str:
    """Return `text`, safe and at most `width` characters long, its loss marked by an ellipsis."""
    text = safe(text[: width + 1])
    return text if len(text) <= width else text[: width - 1] + "…"


def count(number: int, what: str) -> str:
    """Return a number with its noun: ``1 order``, ``2 orders``, ``2 processes``, ``2 entries``."""
    if number != 1:
        what = re.sub("(?<=[^aeiou])y$", "ie", what)
        what += "es" if what.endswith("s") else "s"
    return f"{number:,} {what}"


def ordinal(number: int) -> str:
    """Return a number's place: ``1st``, ``2nd``, ``11th``."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number % 100 // 10 != 1 else 0, "th")
    return f"{number}{ending}"
