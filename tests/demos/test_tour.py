"""The tour: a minute that shows the whole idea, each line of it read from the store."""

import re

import pexpect

from orders.demos.tour import Tour

TOUR = """\
   1  place-order    ◆ PlaceOrder     → place_order    handlers.py
   1  order-created  ● OrderCreated   100 inch TV, magic carpet
   1                   pending        → order_created
   2  notify-sales   ◆ NotifySales    → notify_sales   handlers.py
   2                 ✓ delivered      → order_created  handlers.py
   3  place-order    ◆ PlaceOrder     → place_order    handlers.py
   3  order-created  ● OrderCreated   rope
   3                   pending        → order_created
   3                   pending        → mail_customer
   4  notify-sales   ◆ NotifySales    → notify_sales   handlers.py
   4                 ✓ delivered      → order_created  handlers.py
   5                 ✗ failed         → mail_customer
   6  place-order    ◆ PlaceOrder     → place_order    handlers.py
   6  order-created  ● OrderCreated   soft cheese
   6                   pending        → order_created
   7                   pending        → order_created
   8  notify-sales   ◆ NotifySales    → notify_sales   handlers.py
   8                 ✓ delivered      → order_created  handlers.py
   9                   pending        → mail_customer
  10                 ✓ delivered      → mail_customer  tour.py
"""


def refuse(_seconds):
    """Be a pause that is not to be."""
    raise AssertionError("it has waited")


def test_plain_demo_is_the_tour_whose_lines_are_the_log(tool):
    result = tool("demo")
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    placed = [re.sub(r":\d+.*", "", line) for line in lines]
    assert [line[:73].rstrip() for line in placed if "handlers.py" in line] == [
        line for line in TOUR.splitlines() if "handlers.py" in line
    ]
    assert [line[:50].rstrip() for line in lines] == [
        line[:50].rstrip() for line in TOUR.splitlines()
    ]
    assert lines[11].endswith("  the mail server is down")
    assert lines[15].endswith("taken over")
    assert lines[17].endswith("late")

    said = result.stderr
    scenes = re.findall(r"^> (\d)/5  .+\n  \$ (.+)$", said, re.MULTILINE)
    assert scenes == [
        ("1", 'orders place "100 inch TV" "magic carpet"'),
        ("2", "orders place rope"),
        ("3", 'ORDERS_FAULT=after-fsync orders place "soft cheese"'),
        ("4", "orders list"),
        ("5", "orders retry --all"),
    ]
    assert re.search(r"process \d+ was killed: the order is on disk, its notice pending", said)
    assert "(the same with plain pypubsub and TinyDB: lost for good)" in said
    assert "3 orders, nothing lost, nobody notified twice (14 checks ok)" in said
    assert said.splitlines()[-1].startswith("  Now you:  orders place rope")


def test_the_tour_takes_about_a_minute_on_a_terminal(monkeypatch, screen, tmp_path):
    pauses = tmp_path / "pauses"

    def note(seconds):
        with pauses.open("a") as file:
            file.write(f"{seconds}\n")

    monkeypatch.setattr("orders.demos.stage.sleep", note)
    status, shown = screen("demo", columns=100)
    assert (status, "3 orders, nothing lost" in shown) == (0, True)
    assert 45 <= sum(map(float, pauses.read_text().splitlines())) <= 75


def test_the_tour_with_steps_is_not_paced_and_shows_its_checks(monkeypatch, tool):
    monkeypatch.setattr("orders.demos.stage.sleep", refuse)
    result = tool("demo", "--step", env={"FORCE_COLOR": "1", "NO_COLOR": "1"})
    assert len(re.findall("^  ok: ", result.stderr, re.MULTILINE)) == 14


def test_ctrl_c_ends_the_tour_at_once(terminal, empty):
    child = terminal("demo", env={"TMPDIR": str(empty)})
    child.expect_exact("1/5")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert [*empty.iterdir()] == []


def test_the_tour_exits_1_when_a_scene_does_not_do_what_it_shows(monkeypatch, patched_tool, empty):
    monkeypatch.setattr(Tour, "recover", lambda _: None)
    result = patched_tool("demo", env={"TMPDIR": str(empty)})
    assert result.returncode == 1
    assert "NOT SO: nothing is left to deliver" in result.stderr
    assert "checks ok" not in result.stderr
    assert [*empty.iterdir()] == []
