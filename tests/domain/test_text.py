"""Numbers as people read them, and the characters that no text may have."""

import sys

import pytest

from orders.domain.text import count, ordinal, unsafe_character


@pytest.mark.parametrize(
    ("number", "what", "text"),
    [
        (1, "order", "1 order"),
        (0, "order", "0 orders"),
        (2_000, "order", "2,000 orders"),
        (2, "process", "2 processes"),
        (1, "delivery", "1 delivery"),
        (2, "delivery", "2 deliveries"),
        (2, "day", "2 days"),
    ],
)
def test_a_number_has_its_noun(number, what, text):
    assert count(number, what) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (112, "112th")],
)
def test_a_number_has_its_place(number, text):
    assert ordinal(number) == text


def test_what_cannot_be_printed_is_named_and_everything_else_may_be_stored():
    refused = {n for n in range(sys.maxunicode + 1) if unsafe_character(f"a{chr(n)}b")}
    separators, bidi = {0x2028, 0x2029}, {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
    controls = {*range(0x20), *range(0x7F, 0xA0)}
    assert refused == controls | separators | bidi | {*range(0xD800, 0xE000)}
    assert unsafe_character("\x1b[1m") == "U+001B"
