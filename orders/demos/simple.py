"""The article's simple version, played from `twenty_lines.py`, which knows nothing of us."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from runpy import run_path

from .stage import Stage

SOURCE = Path(__file__).with_name("twenty_lines.py")


def run(stage: Stage) -> None:
    """Run the twenty lines, and check the two notices they print."""
    stage.step(
        "The article's simple version: pypubsub and a dict",
        f"python {SOURCE.name}",
        asks="What is left of the orders when the program ends?",
    )
    printed = StringIO()
    with redirect_stdout(printed):
        orders = run_path(str(SOURCE))["orders"]
    stage.console.records([line] for line in printed.getvalue().splitlines())
    places = [
        printed.getvalue().find(f"ID: {order_id}\nItems: {orders[order_id]}") for order_id in orders
    ]
    stage.check("two orders, two notices, in order", len(places) == 2 and 0 < places[0] < places[1])
    stage.check("the orders are in a dict and gone when the program ends", isinstance(orders, dict))
