"""Numbers as people read them."""

import pytest

from orders.domain.text import count, ordinal


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
