"""Orders in and out as files: what is exported can be imported, and a bad line imports nothing."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orders import CancelOrder, OrderCreated, PlaceOrder, ShipOrder, bootstrap
from orders.application.notifications import NullNotifier
from orders.domain.text import unsafe_character
from orders.errors import Interrupted
from orders.tools import import_export

FORMATS = ["json", "jsonl", "csv"]
SAMPLE = Path(__file__).parents[2] / "data" / "sample-orders.csv"
BOM = b"\xef\xbb\xbf"
AWKWARD = [
    PlaceOrder(("100 inch TV", "magic carpet"), "Aunt Mae"),
    PlaceOrder(('a "quoted", name', "comma,comma,", "'"), 'O\'Neill, "Bob"'),
    PlaceOrder(("🧞 carpet", "e\u0301clair", "👩\u200d🚀"), "Zoë Ångström"),
    PlaceOrder(("שטיח קסם", "سجادة"), "עדה"),
    PlaceOrder(("  padded  ", "same", "same"), "\t tabbed "),
    PlaceOrder(("=1+1", "-x", "#", ";", "\\n", "null", "1e9"), "null"),
    PlaceOrder(("x" * 500,), None, 'a key, with "quotes" and a \' '),
]


def facts(order):
    """Return what an export keeps of an order."""
    return order["items"], order["customer"], order["status"], order["version"]


def listed(result):
    assert (result.returncode, result.stderr) == (0, "")
    return [facts(order) for order in json.loads(result.stdout)]


def write(directory, name, content):
    file = directory / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def import_file(app, file):
    return import_export.import_orders(app, import_export.read(file), lambda: None)


def refused(result, *problems):
    """Check that the tool named these lines and imported nothing."""
    *named, last, hint = result.stderr.splitlines()
    assert (result.returncode, result.stdout) == (1, "")
    assert len(named) == len(problems)
    for line, problem in zip(named, problems, strict=True):
        assert line.startswith(problem)
    assert last.startswith("error: ")
    assert hint.startswith("try: ")
    assert "Traceback" not in result.stderr
    return f"{last}\n{hint}"


# Out and in again


@pytest.mark.engines
@pytest.mark.parametrize("form", FORMATS)
def test_export_and_import_into_another_store_give_equal_orders(tool, send, tmp_path, form):
    shipped, cancelled, *_ = send(*AWKWARD)
    send(ShipOrder(shipped), CancelOrder(cancelled, "no stock"))
    file = tmp_path / f"orders.{form}"
    exported = tool("export", str(file))
    assert (exported.returncode, exported.stdout) == (0, "")
    other = tmp_path / "other"
    assert tool("import", str(file), data=other).returncode == 0
    before = listed(tool("list", "--json"))
    assert listed(tool("list", "--json", data=other)) == before
    assert [status for _, _, status, _ in before][-2:] == ["cancelled", "shipped"]
    assert (["padded", "same", "same"], "tabbed", "placed", 1) in before


@pytest.mark.engines
@pytest.mark.parametrize("form", FORMATS)
def test_an_exported_file_is_what_standard_output_gets(tool, send, tmp_path, form):
    send(*AWKWARD)
    file = tmp_path / f"orders.{form}"
    assert tool("export", str(file)).returncode == 0
    assert tool("export", "--format", form).stdout == file.read_text("utf-8")
    renamed = tmp_path / "orders.other"
    assert tool("export", str(renamed), "--format", form).returncode == 0
    assert renamed.read_bytes() == file.read_bytes()


@pytest.mark.engines
def test_export_prints_json_unless_told_otherwise(tool, send):
    (order_id,) = send(PlaceOrder(("rope",), "Ada", "k"))
    (order,) = json.loads(tool("export").stdout)
    assert (order["id"], order["key"], order["items"]) == (order_id, "k", ["rope"])


@pytest.mark.engines
def test_an_export_is_oldest_first(tool, send):
    order_ids = send(*AWKWARD)
    assert [order["id"] for order in json.loads(tool("export").stdout)] == order_ids


texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20).filter(
    lambda text: text.strip() and not unsafe_character(text)
)
placements = st.builds(
    PlaceOrder,
    items=st.lists(texts, min_size=1, max_size=4).map(tuple),
    customer=st.none() | texts,
    key=st.none() | texts,
)


@given(st.lists(placements, max_size=5), st.sampled_from(FORMATS))
@settings(max_examples=25, deadline=None, database=None)
def test_any_orders_survive_export_and_import(commands, form):
    with TemporaryDirectory() as directory:
        file = Path(directory) / f"orders.{form}"
        with bootstrap(":memory:", notifier=NullNotifier()) as one:
            for command in commands:
                one.bus.send(command)
            stored = [*reversed(one.orders.list())]
            keys = one.store.keys([order.id for order in stored])
        import_export.write_file(file, import_export.write(stored, keys, form))
        assert len(import_export.read(file)) == len(stored)
        with bootstrap(":memory:", notifier=NullNotifier()) as two:
            assert import_file(two, file) == (len(stored), 0)
            copied = [*reversed(two.orders.list())]
            assert [(order.items, order.customer) for order in copied] == [
                (order.items, order.customer) for order in stored
            ]
            assert import_file(two, file) == (0, len(stored))


# Once only


@pytest.mark.engines
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("o.csv", "key,item,customer\na,rope,Ada\nb,lamp,\na,hook,Ada\n"),
        ("o.jsonl", '{"items": ["rope", "hook"], "key": "a"}\n{"items": ["lamp"], "key": "b"}\n'),
        ("o.json", '[{"items": ["rope", "hook"], "key": "a"}, {"items": ["lamp"], "id": "b"}]'),
    ],
)
def test_importing_a_file_again_imports_nothing(tool, tmp_path, name, content):
    file = str(write(tmp_path, name, content))
    first, again = tool("import", file, "--json"), tool("import", file, "--json")
    assert json.loads(first.stdout) == {"imported": 2, "skipped": 0}
    assert json.loads(again.stdout) == {"imported": 0, "skipped": 2}
    items = [order["items"] for order in json.loads(tool("list", "--json").stdout)]
    assert items == [["lamp"], ["rope", "hook"]]


@pytest.mark.engines
@pytest.mark.parametrize("form", FORMATS)
def test_importing_an_export_into_its_own_store_imports_nothing(tool, send, tmp_path, form):
    shipped, *_ = send(*AWKWARD)
    send(ShipOrder(shipped))
    file = str(tmp_path / f"orders.{form}")
    tool("export", file)
    before = tool("list").stdout
    again = tool("import", file, "--json")
    assert json.loads(again.stdout) == {"imported": 0, "skipped": len(AWKWARD)}
    assert tool("list").stdout == before


@pytest.mark.engines
def test_a_key_that_was_used_before_is_skipped_and_counted(tool, send, tmp_path):
    send(PlaceOrder(("first",), None, "a"))
    file = write(tmp_path, "o.csv", "key,item\na,second\nb,lamp\n")
    result = tool("import", str(file), "--json")
    assert json.loads(result.stdout) == {"imported": 1, "skipped": 1}
    items = [order["items"] for order in json.loads(tool("list", "--json").stdout)]
    assert items == [["lamp"], ["first"]]


@pytest.mark.engines
def test_an_import_leaves_the_garbage_collection_as_it_was(data, tmp_path):
    before, during = gc.get_threshold(), []
    file = write(tmp_path, "orders.jsonl", b'{"items":["rope"]}\n')
    with bootstrap(data, notifier=NullNotifier()) as app:
        app.bus.subscribe(OrderCreated, lambda _: during.append(gc.get_threshold()), name="look")
        import_file(app, file)
    assert gc.get_threshold() == before
    assert during != [before]


def test_lines_without_a_key_are_imported_each_time(tool, tmp_path):
    file = str(write(tmp_path, "o.jsonl", '{"items": ["rope"]}\n{"items": ["rope"]}\n'))
    assert json.loads(tool("import", file, "--json").stdout) == {"imported": 2, "skipped": 0}
    assert json.loads(tool("import", file, "--json").stdout) == {"imported": 2, "skipped": 0}


@pytest.mark.engines
def test_an_interrupted_import_says_how_many_orders_are_stored(data, tmp_path):
    class Impatient:
        notices = 0

        def notify(self, notice):
            self.notices += 1
            if self.notices == 3:
                raise KeyboardInterrupt

    rows = "".join(f"k{number},item {number}\n" for number in range(500))
    file = write(tmp_path, "o.csv", f"key,item\n{rows}")
    with bootstrap(data, notifier=Impatient()) as app:
        with pytest.raises(Interrupted) as interrupted:
            import_file(app, file)
        stored = app.orders.count()
        assert stored > 0
        assert str(interrupted.value).startswith(f"{stored} orders imported")
        assert import_file(app, file) == (500 - stored, stored)


@pytest.mark.engines
def test_two_processes_importing_one_file_give_each_order_once(orders, data, tmp_path):
    total = 1200
    rows = "".join(f"k{number},item {number}\n" for number in range(total))
    file = write(tmp_path, "o.csv", f"key,item\n{rows}")
    command = [sys.executable, "-m", "orders", "import", str(file), "--json"]
    environment = {**os.environ, "ORDERS_DATA": str(data)}
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    results = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum(result["imported"] for result in results) == total
    assert sum(result["skipped"] for result in results) == total
    items = [order["items"] for order in json.loads(orders("list", "--json").stdout)]
    assert sorted(items) == sorted([f"item {number}"] for number in range(total))
    kinds = [line.split("\t")[2] for line in orders("log").stdout.splitlines()]
    assert kinds.count("NotifySales") == total


# What import says


@pytest.mark.engines
def test_the_summary_is_for_people_and_json_for_programs(tool, tmp_path):
    file = str(write(tmp_path, "o.csv", "key,item\na,rope\n"))
    result = tool("import", file)
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr.startswith("1 order")
    assert result.stderr.count("\n") == 1
    again = tool("import", file, "--json")
    assert again.stdout == '{"imported":0,"skipped":1}\n'


@pytest.mark.engines
def test_the_notices_of_an_import_are_in_the_log_and_not_printed(tool, tmp_path):
    file = write(tmp_path, "o.csv", "key,item\na,rope\nb,lamp\n")
    result = tool("import", str(file))
    assert "New Order" not in result.stdout + result.stderr
    log = [line.split("\t") for line in tool("log").stdout.splitlines()]
    assert [row[4] for row in log if row[2] == "Delivery" and "done" in row[4]] == [
        "order_created done",
        "order_created done",
    ]
    assert sum(row[2] == "NotifySales" for row in log) == 2


@pytest.mark.parametrize("name", ["events.jsonl", "orders.json"])
def test_no_export_takes_the_place_of_a_file_of_the_store(tool, data, name):
    data.mkdir()  # where neither stands as yet
    refused = tool("export", str(data / name))
    assert (refused.returncode, "file of the store" in refused.stderr) == (1, True)
    assert tool("place", "rope").returncode == 0
    assert tool("export", str(data / name)).returncode == 1
    assert len(listed(tool("list", "--json"))) == 1


def test_an_import_that_the_disk_ends_says_how_far_it_came(tool, tmp_path):
    lines = (f'{{"items": ["rope"], "key": "k{number}"}}\n' for number in range(1_000))
    file = str(write(tmp_path, "o.jsonl", "".join(lines)))
    full = tool("import", file, env={"ORDERS_FAULT": "before-append@3=ENOSPC"})
    assert (full.returncode, "500 orders imported; of the rest: " in full.stderr) == (1, True)
    assert json.loads(tool("import", file, "--json").stdout) == {"imported": 500, "skipped": 500}


# What files may look like


@pytest.mark.engines
def test_rows_of_one_key_need_not_stand_together(tool, tmp_path):
    content = "key,item,customer\na,rope,Ada\nb,lamp,Bob\na,hook,Ada\nb,bulb,Bob\na,rope,Ada\n"
    tool("import", str(write(tmp_path, "o.csv", content)))
    assert listed(tool("list", "--json")) == [
        (["lamp", "bulb"], "Bob", "placed", 1),
        (["rope", "hook", "rope"], "Ada", "placed", 1),
    ]


@pytest.mark.engines
def test_a_column_or_field_that_is_not_known_is_refused_for_it_may_be_a_slip(tool, tmp_path):
    for name, content in (
        ("o.csv", "key,item,custmer\na,rope,Ada\n"),
        ("o.jsonl", '{"items": ["rope"], "custmer": "Ada"}\n'),
    ):
        result = tool("import", str(write(tmp_path, name, content)))
        assert result.returncode == 1
        assert f"{name}:1: " in result.stderr


@pytest.mark.engines
def test_columns_stand_in_any_order(tool, tmp_path):
    content = "item,customer,key\r\nrope,Ada,a\r\n\r\nlamp,,b\r\n"
    tool("import", str(write(tmp_path, "o.CSV", content)))
    assert listed(tool("list", "--json")) == [
        (["lamp"], None, "placed", 1),
        (["rope"], "Ada", "placed", 1),
    ]


@pytest.mark.engines
def test_spaces_around_a_key_and_an_item_do_not_count(tool, tmp_path):
    content = "key,item\na,rope\n a ,  hook \n"
    tool("import", str(write(tmp_path, "o.csv", content)))
    assert listed(tool("list", "--json")) == [(["rope", "hook"], None, "placed", 1)]


@pytest.mark.engines
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("o.csv", "key,item\na,Zoë\n"),
        ("o.jsonl", '{"items": ["Zoë"]}\n'),
        ("o.json", '[{"items": ["Zoë"]}]'),
    ],
)
def test_a_byte_order_mark_is_accepted(tool, tmp_path, name, content):
    tool("import", str(write(tmp_path, name, BOM + content.encode())))
    assert listed(tool("list", "--json")) == [(["Zoë"], None, "placed", 1)]


@pytest.mark.engines
def test_blank_lines_and_a_missing_last_line_feed_are_accepted(tool, tmp_path):
    content = '\n{"items": ["rope"]}\n\r\n   \n{"items": ["lamp"]}'
    tool("import", str(write(tmp_path, "o.jsonl", content)))
    assert listed(tool("list", "--json")) == [
        (["lamp"], None, "placed", 1),
        (["rope"], None, "placed", 1),
    ]


@pytest.mark.engines
def test_a_file_without_orders_imports_none(tool, tmp_path):
    for name, content in (("o.csv", "key,item\n"), ("o.jsonl", ""), ("o.json", "[]")):
        result = tool("import", str(write(tmp_path, name, content)), "--json")
        assert (result.returncode, result.stdout) == (0, '{"imported":0,"skipped":0}\n')


# Bad lines


def test_a_bad_line_of_json_lines_is_named_and_nothing_is_imported(tool, data, tmp_path):
    content = (
        b'{"items": ["rope"]}\n'
        b"nonsense\n"
        b'{"items": []}\n'
        b'{"items": "rope"}\n'
        b'{"item": ["rope"]}\n'
        b'{"items": ["rope", " "]}\n'
        b'{"items": ["\\u001b[31m"]}\n'
        b'{"items": ["two\\nlines"]}\n'
        b'{"items": ["rope"], "status": "lost"}\n'
        b'["rope"]\n'
        b'{"items": ["\xff"]}\n'
    )
    file = write(tmp_path, "bad.jsonl", content)
    result = tool("import", str(file))
    last = refused(result, *(f"{file}:{line}: " for line in range(2, 12)))
    assert "10 bad lines" in last
    assert "U+001B" in result.stderr
    assert not data.exists()


def test_a_bad_order_of_json_is_named_by_its_line(tool, data, tmp_path):
    content = '[\n {"items": ["rope"]},\n {"items": []},\n\n {"items": []}, {"items": [7]}\n]\n'
    file = write(tmp_path, "bad.json", content)
    refused(tool("import", str(file)), f"{file}:3: ", f"{file}:5: ", f"{file}:5: ")
    assert not data.exists()


def test_a_bad_row_of_csv_is_named_by_its_line(tool, data, tmp_path):
    content = (
        "key,item,customer\n"
        "a,rope,Ada\n"
        "b,lamp\n"
        "c,one,two,three\n"
        "a,hook,Bob\n"
        ",rope,Ada\n"
        '"d","two\nlines",Ada\n'
        "e, ,Ada\n"
        "f,\x1b[31m,Ada\n"
    )
    file = write(tmp_path, "bad.csv", content)
    result = tool("import", str(file))
    *named, _, _ = result.stderr.splitlines()
    found = [int(line.removeprefix(f"{file}:").split(":")[0]) for line in named]
    assert found == [3, 4, 5, 6, 7, 9, 10]
    assert "U+001B" in result.stderr
    assert "\x1b" not in result.stderr
    assert not data.exists()


@pytest.mark.engines
def test_a_bad_row_is_reported_once(tool, tmp_path):
    file = write(tmp_path, "bad.csv", "key,item\n  ,rope\n")
    refused(tool("import", str(file)), f"{file}:2: ")


@pytest.mark.engines
def test_only_the_first_ten_bad_lines_are_named_and_all_are_counted(tool, tmp_path):
    file = write(tmp_path, "bad.jsonl", '{"items": []}\n' * 25)
    last = refused(tool("import", str(file)), *(f"{file}:{line}: " for line in range(1, 11)))
    assert "25 bad lines" in last


@pytest.mark.engines
def test_the_message_of_a_bad_line_is_the_domains(tool, tmp_path):
    file = write(tmp_path, "bad.jsonl", '{"items": ["rope", "  "]}\n')
    problem = f"{file}:1: item 2 is blank"
    assert "1 bad line in" in refused(tool("import", str(file)), problem)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("o.csv", "key,item,item\na,rope,tv\n", ":1: the header names a column twice"),
        ("o.csv", "name,item\na,rope\n", ":1: the header must name key and item, and may name"),
        ("o.csv", "", ":1: the file is empty"),
        ("o.csv", "key,item\na,\xff".encode("latin-1"), ":2: "),
        ("o.csv", 'key,item\na,"rope\n', ":2: "),
        ("o.csv", "key,item\na,ro\x00pe\n", ":2: "),
        ("o.json", "", ":1: "),
        ("o.json", "{}", ":1: "),
        ("o.json", "[\n[1],\n]", ":3: "),
        ("o.json", b'[\n{"items": ["\xff"]}]', ":2: "),
        ("o.json", '[\n\n{"items": ["\\ud800"]}]', ":3: "),
        ("o.jsonl", '{"items": ["\\ud800"]}', ":1: "),
        ("o.jsonl", "\ufffe", ":1: "),
    ],
)
def test_a_file_that_is_not_of_its_format_is_refused_by_line(
    tool, data, tmp_path, name, content, problem
):
    file = write(tmp_path, name, content)
    refused(tool("import", str(file)), f"{file}{problem}")
    assert not data.exists()


@pytest.mark.engines
@pytest.mark.parametrize(
    ("name", "start"), [("o.json", "["), ("o.jsonl", '{"items": ["rope"], "note": ')]
)
def test_json_nested_too_deep_is_refused_by_line(tool, tmp_path, name, start):
    file = write(tmp_path, name, start + "[" * 100_000)
    refused(tool("import", str(file)), f"{file}:1: ")


@pytest.mark.parametrize(
    ("name", "word"),
    [("orders.txt", ".csv"), ("orders", ".csv"), ("missing.csv", "o such file"), ("/", ".csv")],
)
def test_a_file_that_cannot_be_read_is_refused(tool, data, name, word):
    assert word in refused(tool("import", name))
    assert not data.exists()


@pytest.mark.engines
def test_a_directory_is_no_file(tool, tmp_path):
    (tmp_path / "orders.csv").mkdir()
    assert "directory" in refused(tool("import", "orders.csv"))
    assert "directory" in refused(tool("export", "orders.csv"))


@pytest.mark.engines
def test_a_file_name_is_shown_harmlessly(tool, tmp_path):
    write(tmp_path, "\x1b[31m.csv", "key,item\na, \n")
    result = tool("import", "\x1b[31m.csv")
    refused(result, "\\x1b[31m.csv:2: ")
    assert "\x1b" not in result.stderr


@pytest.mark.engines
def test_an_export_that_cannot_be_written_says_so(tool, send, tmp_path):
    send(AWKWARD[0])
    assert "missing" in refused(tool("export", "missing/orders.csv"))
    assert ".csv" in refused(tool("export", "orders.txt"))
    assert [*tmp_path.glob("*.txt")] == []


@pytest.mark.engines
def test_export_writes_into_a_pipe_and_leaves_it_one(tool, send, tmp_path):
    send(AWKWARD[0])
    pipe = tmp_path / "o.jsonl"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        tool("export", str(pipe))
    finally:
        os.close(reader)
    assert pipe.is_fifo()


# The sample


@pytest.mark.engines("long")
def test_the_sample_orders_are_imported_wholly(tool):
    assert SAMPLE.exists()
    total = len(import_export.read(SAMPLE))
    assert 200 <= total < 1000
    result = tool("import", str(SAMPLE), "--json")
    assert json.loads(result.stdout) == {"imported": total, "skipped": 0}
    stored = json.loads(tool("list", "--json").stdout)
    assert len(stored) == total
    assert any(not order["customer"].isascii() for order in stored if order["customer"])
