"""What the tests of the command line share: what they check of a run, and two orders to place."""

import re

from orders import PlaceOrder

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
ISO = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
ORDER_FIELDS = ["id", "items", "customer", "status", "placed_at", "version"]
TWO = (PlaceOrder(("rope",), "Ada"), PlaceOrder(("100 inch TV", "lamp"), "Bob"))


def refused(result, *words, status=1):
    """Check that the tool said why it could not, and what to try: a line each, to people only."""
    assert (result.returncode, result.stdout) == (status, "")
    said = result.stderr.split("\n")
    assert [line.partition(" ")[0] for line in said] in (["error:", ""], ["error:", "try:", ""])
    assert not RAW.search(result.stderr)
    for word in words:
        assert word in result.stderr
    return True


def done(result):
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def rows(result):
    return [line.split("\t") for line in done(result).splitlines()]


def ids(result):
    return [row[0] for row in rows(result)]
