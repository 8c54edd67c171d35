"""What a terminal showed, as text that tests can compare."""

import re
import unicodedata

STYLE = re.compile(r"\x1b\[[0-9;]*m")


def plain(text):
    """Return what was shown without its styles."""
    return STYLE.sub("", text)


def width(line):
    """Return how many columns a terminal needs for the line."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in line)
    return len(line) + wide
