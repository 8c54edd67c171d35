"""The state file as a TinyDB storage: whole or refused, and open to stock TinyDB."""

import errno
import os
import random
import stat

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace
from store_files import RefusingDisk, snapshot
from tinydb import TinyDB, where

from orders.adapters.files.disk import Disk
from orders.adapters.files.state import (
    FORMAT,
    HEAD_SIZE,
    Documents,
    Head,
    Loaded,
    RawTables,
    StateStorage,
    last_documents,
)
from orders.domain.order import OrderState
from orders.errors import ForeignFile, NotWritten, StoreError

HEAD = Head(FORMAT, 7, 3301, "1c291ca3")

TABLES = {
    "orders": {
        str(number): {
            "id": f"order-{number}",
            "items": ["100 inch TV", "Zoë's 🧞 carpet", 'a "quoted" }}, name'],
            "customer": None,
            "status": "placed",
            "placed_at": "2026-11-21T09:30:00.123456Z",
            "version": 1,
        }
        for number in range(1, 6)
    },
    "keys": {"2": {"key": "k", "order_id": "order-2"}},
}

FOREIGN = {
    "object": b'{"foo":1}',
    "list": b"[1,2]",
    "null": b"null",
    "number": b"7",
    "another TinyDB": b'{"_default": {"1": {"name": "Ann"}, "2": {"name": "Bob"}}}',
    "empty object": b"{}",
    "log of another kind": b'{"log": ["started", "stopped"]}',
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "orders.json"


@pytest.fixture
def storage(path):
    return StateStorage(path, Disk())


@pytest.fixture
def kept(storage, path):
    """The bytes of a state file."""
    write(storage)
    return path.read_bytes()


def write(storage, tables=TABLES):
    storage.write({"log": {"1": msgspec.structs.asdict(HEAD)}, **tables})


def load(path):
    return StateStorage(path, Disk()).load()


def test_what_is_written_is_loaded(kept, path):
    head, tables, damage = msgspec.structs.astuple(load(path))
    assert damage is None
    assert (head.format, head.seq, head.offset, head.line) == (FORMAT, 7, 3301, "1c291ca3")
    loaded = msgspec.json.encode({name: tables[name] for name in TABLES})
    assert msgspec.json.decode(loaded) == TABLES


def test_the_same_tables_make_the_same_bytes(kept, path):
    write(StateStorage(path, Disk()))
    assert path.read_bytes() == kept


@pytest.mark.parametrize("tables", [{}, {"orders": {}}, TABLES])
def test_whatever_is_written_is_json_for_everybody(storage, path, tables):
    write(storage, tables)
    content = msgspec.json.decode(path.read_bytes())
    del content["log"]
    assert content == tables
    assert load(path).damage is None


def test_tables_without_documents_are_written_and_loaded(storage, path):
    write(storage, {"orders": {}, "keys": {}})
    head, tables, damage = msgspec.structs.astuple(load(path))
    assert (head.seq, tables["orders"], tables["keys"], damage) == (7, {}, {}, None)


def test_the_head_is_read_without_the_rest(kept, storage, path):
    head = load(path).head
    assert storage.head() == head
    path.write_bytes(kept[:HEAD_SIZE] + b"\xff" * 1000)
    assert storage.head() == head


def test_the_largest_head_fits_into_what_is_read_of_it(storage, path):
    number = 2**63 - 1
    largest = Head(FORMAT, number, number, "f" * 8)
    storage.write({"log": {"1": msgspec.structs.asdict(largest)}, **TABLES})
    assert storage.head() == load(path).head
    assert storage.head().offset == number


def test_stock_tinydb_opens_the_file_and_searches_it(kept, path):
    with TinyDB(path) as stock:
        assert stock.tables() == {"log", "orders", "keys"}
        orders = stock.table("orders")
        assert {str(order.doc_id): order for order in orders.all()} == TABLES["orders"]
        assert orders.get(where("id") == "order-3").doc_id == 3
    assert path.read_bytes() == kept


def test_tinydb_on_this_storage_sees_the_tables(storage):
    write(storage)
    table = TinyDB(storage=lambda: storage).table("orders")
    assert len(table) == 5
    assert table.count(where("status") == "placed") == 5


def test_a_file_that_is_not_there_is_no_state_and_is_not_made(storage, path):
    assert load(path) == Loaded(None, {}, None)
    assert storage.head() is None
    assert storage.size() == 0
    assert not path.exists()


def test_an_empty_file_is_no_state(storage, path):
    path.touch()
    assert load(path) == Loaded(None, {}, None)
    assert storage.head() is None


@pytest.mark.parametrize("start", ["", '{"log":{"1":{"x":'])
def test_a_file_nested_too_deeply_is_damaged(start, storage, path):
    path.write_text(start + "[" * 5000)
    assert load(path) == Loaded(None, {}, "is not valid JSON")
    assert storage.head() is None


def test_a_file_cut_at_any_byte_is_damaged(kept, path):
    for cut in range(1, len(kept)):
        path.write_bytes(kept[:cut])
        assert load(path) == Loaded(None, {}, "is not valid JSON")


@pytest.mark.parametrize("change", [0x01, 0xFF])
@pytest.mark.sample(1)
def test_a_changed_byte_anywhere_never_gives_other_data(kept, path, change):
    for position in range(len(kept)):
        changed = bytearray(kept)
        changed[position] ^= change
        path.write_bytes(changed)
        try:
            head, tables, damage = msgspec.structs.astuple(load(path))
        except ForeignFile:
            assert kept.index(b"log") <= position < kept.index(b"log") + 3
            continue
        if damage is None:  # a byte of the format: another version's business
            assert head.format != FORMAT
        else:
            assert (head, tables) == (None, {})


def test_random_bytes_anywhere_never_give_other_data(kept, path):
    dice = random.Random(7)
    for _ in range(200):
        changed = bytearray(kept)
        for _ in range(dice.randint(1, 20)):
            changed[dice.randrange(kept.index(b'"orders"'), len(kept))] = dice.randrange(256)
        path.write_bytes(changed)
        assert load(path).damage or bytes(changed) == kept


def test_a_pretty_printed_file_counts_as_changed(kept, path):
    path.write_bytes(msgspec.json.format(kept, indent=2))
    assert load(path) == Loaded(None, {}, "was changed by another program")


def test_a_file_changed_by_hand_counts_as_changed(kept, path):
    path.write_bytes(kept.replace(b'"placed"', b'"shipped"', 1))
    assert load(path) == Loaded(None, {}, "was changed by another program")


def test_a_file_changed_by_stock_tinydb_counts_as_changed(kept, path):
    with TinyDB(path) as stock:
        stock.table("orders").update({"status": "shipped"}, doc_ids=[1])
    assert load(path) == Loaded(None, {}, "was changed by another program")


def test_a_head_that_was_changed_by_hand_counts_as_changed(kept, path):
    for old, new in [(b'"seq":7', b'"seq":6'), (b"3301", b"3300"), (b"1c291ca3", b"1c291ca4")]:
        path.write_bytes(kept.replace(old, new, 1))
        assert load(path) == Loaded(None, {}, "was changed by another program")


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_json_of_another_program_is_foreign_and_untouched(storage, path, content):
    path.write_bytes(content)
    before = snapshot(path)
    with pytest.raises(ForeignFile, match=r"orders.json is not the state of an order store; it "):
        storage.load()
    assert storage.head() is None
    assert snapshot(path) == before


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_what_is_no_file_is_foreign_at_once(storage, path, kind):
    os.mkfifo(path) if kind == "fifo" else path.mkdir()
    before = snapshot(path)
    for use in (storage.load, storage.head, storage.size):
        with pytest.raises(ForeignFile, match=r"orders.json is (a directory|no regular file)"):
            use()
    assert snapshot(path) == before


def test_a_disk_that_refuses_leaves_the_old_file_and_the_old_tables(kept, storage, path):
    storage = StateStorage(path, RefusingDisk(write=errno.ENOSPC))
    with pytest.raises(NotWritten, match="no space left on device"):
        write(storage)
    assert path.read_bytes() == kept
    assert storage.read() == {}
    assert [entry.name for entry in path.parent.iterdir()] == ["orders.json"]


def test_a_state_file_that_is_a_symbolic_link_stays_one(storage, path, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / "real.json"
    path.symlink_to(real)
    write(storage)
    assert path.is_symlink()
    assert real.read_bytes() == path.read_bytes()
    assert load(path).head.seq == 7


def test_a_new_state_file_is_for_its_owner_only_and_an_old_one_keeps_its_mode(storage, path):
    write(storage)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    write(storage)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_file_that_cannot_be_opened_is_an_error_of_the_store(tmp_path):
    (tmp_path / "file").touch()
    storage = StateStorage(tmp_path / "file" / "orders.json", Disk())
    for use in (storage.load, storage.head, storage.size):
        with pytest.raises(StoreError, match="not a directory"):
            use()


# Documents that are decoded when looked at


@pytest.fixture
def documents(kept, path):
    """The orders of a state file as they are loaded for the fold."""
    tables = StateStorage(path, Disk(), RawTables).load().tables
    return Documents(tables["orders"], OrderState)


def test_documents_are_what_was_written_whichever_way_they_are_looked_at(documents):
    frozen = {n: msgspec.convert(d, OrderState) for n, d in TABLES["orders"].items()}
    assert documents == frozen
    assert dict(documents.items()) == frozen
    assert list(documents.values()) == list(frozen.values())
    assert documents["2"] == documents.get("2") == frozen["2"]
    assert documents.get("9") is None
    assert documents != {**frozen, "9": {}}


def test_documents_are_found_by_a_field_also_when_they_were_put_there_later(documents):
    by_id = {f"order-{number}": f"{number}" for number in range(1, 6)}
    assert documents.by("id") == by_id
    documents.put("6", replace(documents["1"], id="order-6"))
    documents.put("2", replace(documents["2"], status="shipped"))
    assert documents.by("id") == by_id | {"order-6": "6"}
    assert documents.by("status") == {"placed": "6", "shipped": "2"}


def test_documents_whether_looked_at_or_not_make_the_same_bytes(documents, kept, storage, path):
    assert documents["3"].id == "order-3"
    write(storage, {"orders": documents, "keys": TABLES["keys"]})
    assert path.read_bytes() == kept


TEXTS = st.text('{}[],:"\\\\17a\x00é', max_size=12)


@given(st.lists(st.lists(TEXTS, max_size=4), max_size=12), st.integers(1, 14))
@example([['},"7":{"id":"'], ["\\\\", ',"8":{'], [',"9', '":{"']], 2)
@example([["x" * 5000], ["y"]], 2)
def test_the_last_documents_are_found_whatever_their_texts_look_like(lists, many):
    texts = {number: {"items": items} for number, items in enumerate(lists, 1)}
    table = msgspec.Raw(msgspec.json.encode({str(n): one for n, one in texts.items()}))
    last = last_documents(table, many, dict[int, dict[str, list[str]]])
    assert list(last.items()) == list(texts.items())[-many:]
