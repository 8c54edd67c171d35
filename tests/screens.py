"""What a terminal showed, as text that tests can compare."""

import re
import unicodedata

STYLE = re.compile(r"\x1b\[[0-9;]*m")
LINK = re.compile(r"\x1b\]8;[^;]*;([^\x1b]*)\x1b\\")


def plain(text):
    """Return what was shown without its styles and links."""
    return STYLE.sub("", LINK.sub("", text))


def linked(text):
    """Return where what was shown leads whoever clicks on it."""
    return set(LINK.findall(text)) - {""}


def width(line):
    """Return how many columns a terminal needs for the line."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in line)
    return len(line) + wide - line.count("\u2068") - line.count("\u2069")
