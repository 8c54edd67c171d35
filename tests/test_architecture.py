"""The shape of the house: who imports whom, what stands where, and what a start costs nobody."""

import ast
import json
import os
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import typer

from orders.cli import app

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "orders"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {file: ast.parse(file.read_text()) for file in FILES}

# room: the rooms that it may import. `orders` is the package itself, its public names.
HOUSE = {
    "errors": "",
    "text": "",
    "times": "",
    "ledger": "",
    "message": "errors",
    "settings": "errors",
    "filters": "domain",
    "commands": "message settings",
    "events": "message settings",
    "domain": "events errors message text",
    "line": "message ledger",
    "disk": "errors message",
    "storage": "disk errors ledger",
    "leases": "disk errors message",
    "log_reader": "disk errors ledger line message",
    "event_log": "disk errors ledger line log_reader message",
    "repository": "disk domain errors event_log events filters ledger line log_reader storage",
    "subscriptions": "errors message",
    "bus": "errors message subscriptions",
    "unit": "domain ledger message",
    "unit_of_work": "bus domain errors event_log events ledger message repository unit",
    "delivery": "bus errors event_log leases ledger message subscriptions text unit_of_work",
    "notifier": "text",
    "handlers": "bus commands domain errors events message notifier unit_of_work",
    "faults": "disk errors message subscriptions",
    "bootstrap": (
        "bus delivery disk errors event_log faults handlers leases message notifier repository"
        " settings subscriptions unit_of_work"
    ),
    "orders": "bootstrap bus commands domain errors events message notifier settings",
    "exchange": "bootstrap commands domain errors unit_of_work views",
    "history": "domain errors event_log events line",
    "projections": "events message subscriptions",
    "policies": "commands events message projections",
    "followers": (
        "bootstrap bus delivery errors ledger line message policies projections storage"
        " subscriptions"
    ),
    "runners": "bootstrap bus errors followers ledger projections",
    "feed": "errors event_log ledger message",
    "views": "bus domain history ledger line message subscriptions times",
    "replay": "bootstrap errors followers policies projections storage views",
    "doctor": "bootstrap disk errors followers policies replay repository views",
    "bench": "bootstrap commands events exchange line message notifier views",
    "trace": "bootstrap event_log followers ledger line message policies times views",
    "render": "domain ledger notifier text trace",
    "console": "disk domain errors ledger message notifier render subscriptions text views",
    "parameters": "bootstrap console errors followers message policies settings text times",
    "demos": (
        "bootstrap console errors events ledger message notifier orders projections policies"
        " runners subscriptions"
    ),
    "observe": (
        "console feed ledger message parameters policies projections render replay trace views"
    ),
    "upkeep": "bench console doctor errors parameters replay views",
    "cli": (
        "commands console demos disk domain errors exchange filters history observe orders"
        " parameters render upkeep views"
    ),
    "__main__": "cli",
}

# A library, and the only files that import it.
IMPORTERS = {
    "rich": {"render.py"},
    "pubsub": {"bus.py", "demos/twenty_lines.py", "demos/article_wiring.py"},
    "fcntl": {"disk.py", "leases.py"},
    "typer": {"cli.py", "observe.py", "upkeep.py", "parameters.py", "console.py"},
    "tinydb": {
        "repository.py",
        "storage.py",
        "filters.py",
        "bench.py",
        "demos/article_wiring.py",
        "demos/crash.py",
        "demos/race.py",
        "demos/racer.py",
    },
}

WIRED = {"MessageBus", "EventLog", "UnitOfWork", "Deliveries", "Leases"}

AUDIT = """
import pkgutil, sys, importlib
SCRIPTS = "orders.__main__", "orders.demos.twenty_lines", "orders.demos.article_wiring"
seen = []
def hook(event, arguments):
    if event == "open" and not str(arguments[0]).endswith((".py", ".pyc", ".so")):
        seen.append((event, str(arguments[0])))
    elif event.startswith(("socket.", "subprocess.", "os.system", "os.fork", "os.posix_spawn",
                           "os.mkdir", "os.remove", "os.rename", "os.truncate", "fcntl.",
                           "tempfile.", "shutil.", "sqlite3.")):
        seen.append((event, str(arguments)))
sys.addaudithook(hook)
import orders
for module in pkgutil.walk_packages(orders.__path__, "orders."):
    if module.name not in SCRIPTS:
        importlib.import_module(module.name)
print(seen)
"""

COSTS = """
import atexit, json, runpy, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
sys.argv = ["orders", *sys.argv[1:]]
runpy.run_module("orders", run_name="__main__")
"""


def name_of(file):
    return file.relative_to(PACKAGE).as_posix()


def room_of(file):
    """Return the room that a file belongs to: its first folder, or its name."""
    first = file.relative_to(PACKAGE).parts[0]
    return {"__init__.py": "orders"}.get(first, first.removesuffix(".py"))


def imports_of(file):
    """Yield what a file imports, wherever that stands in it, as ("room" or "library", name)."""
    package = ["orders", *file.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(TREES[file]):
        if isinstance(node, ast.Import):
            yield from (("library", alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield "library", node.module.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            for alias in node.names:
                path = [*base, *(node.module or alias.name).split(".")][1:]
                is_room = path and path[0] in HOUSE
                yield "room", path[0] if is_room else "orders"


def rooms_of(file):
    return {name for kind, name in imports_of(file) if kind == "room"} - {room_of(file)}


def run(script, *arguments, data="store"):
    return subprocess.run(
        [sys.executable, "-B", "-c", script, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "ORDERS_DATA": str(data)},
    )


# Arrows


def test_every_room_stands_in_the_table():
    assert {room_of(file) for file in FILES} <= set(HOUSE)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_room_imports_only_what_it_may(file):
    assert rooms_of(file) <= set(HOUSE[room_of(file)].split())


def test_the_table_has_no_arrow_that_nobody_needs():
    needed = {room: set() for room in HOUSE}
    for file in FILES:
        needed[room_of(file)] |= rooms_of(file)
    assert needed == {room: set(may.split()) for room, may in HOUSE.items()}


def test_the_arrows_of_the_table_have_a_direction():
    TopologicalSorter({room: may.split() for room, may in HOUSE.items()}).prepare()


def test_nothing_imports_the_command_line_but_its_launchers():
    assert [name_of(file) for file in FILES if "cli" in rooms_of(file)] == ["__main__.py"]


@pytest.mark.parametrize("library", IMPORTERS)
def test_a_library_has_one_room(library):
    importers = {name_of(file) for file in FILES if ("library", library) in imports_of(file)}
    assert importers == IMPORTERS[library]


def test_nothing_imports_its_own_package_by_name():
    absolute = [name_of(file) for file in FILES if ("library", "orders") in imports_of(file)]
    assert absolute == []


def test_only_bootstrap_wires():
    wiring = {
        name_of(file)
        for file in FILES
        for node in ast.walk(TREES[file])
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in WIRED
    }
    assert wiring == {"bootstrap.py"}


# Importing


def test_importing_opens_no_file_and_starts_and_connects_nothing():
    result = run(AUDIT)
    assert (result.stdout, result.stderr) == ("[]\n", "")


DEAR = {"rich", "pygments", "pydantic", "asyncio", "concurrent", "email", "http", "unittest"}
DEAR |= {"logging", "sqlite3", "xml", "csv", "tempfile", "random", "importlib.metadata"}
UNUSED = {f"orders.{room}" for room in ("render", "exchange", "doctor", "replay", "trace", "feed")}
UNUSED |= {f"orders.{room}" for room in ("bench", "runners", "demos", "faults")}
FOLLOWING = {"orders.followers", "orders.policies", "orders.projections"}


@pytest.mark.parametrize(
    ("arguments", "unused"),
    [
        (["list"], UNUSED | FOLLOWING),
        (["list", "--json"], UNUSED | FOLLOWING),
        (["place", "rope"], UNUSED),
        (["-h"], UNUSED | FOLLOWING),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_piped_command_imports_only_what_it_uses(arguments, unused):
    result = run(COSTS, *arguments)
    assert result.returncode == 0
    modules = set(json.loads(result.stderr.splitlines()[-1]))
    assert "orders" in modules
    assert modules & (DEAR | unused) == set()


def test_importing_the_command_line_does_not_import_rich():
    result = run("import sys, orders.cli; print('rich' in sys.modules)")
    assert result.stdout == "False\n"


# Files


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_no_file_is_longer_than_a_reader_likes(file):
    assert len(file.read_text().splitlines()) <= 320


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_whatever_is_public_has_a_docstring(file):
    undocumented = []
    waiting = [TREES[file]]
    while waiting:
        node = waiting.pop()
        if not ast.get_docstring(node):
            undocumented.append(getattr(node, "name", name_of(file)))
        if not isinstance(node, ast.FunctionDef):
            waiting += [
                child
                for child in node.body
                if isinstance(child, ast.FunctionDef | ast.ClassDef)
                and not child.name.startswith("_")
            ]
    assert undocumented == []


def test_every_command_has_a_help_and_an_example():
    for name, command in typer.main.get_command(app).commands.items():
        assert command.help, name
        assert (command.epilog or "").startswith(f"Example: orders {name}"), name
        for parameter in command.params:
            assert parameter.name == "help" or parameter.help, f"{name} {parameter.name}"


def test_the_top_level_holds_only_what_the_design_names():
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    top = {name.partition("/")[0] for name in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} == {
        *("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"),
        *("cli.py", "data", "orders", "tests"),
    }


def test_the_dev_extra_and_the_dev_group_are_one_list():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extra = project["project"]["optional-dependencies"]["dev"]
    assert extra == project["dependency-groups"]["dev"]


def test_the_launcher_of_a_checkout_exposes_app_and_main():
    script = "import sys; sys.path.insert(0, sys.argv[1]); import cli; print(cli.app.info.name)"
    assert run(script, str(ROOT)).stdout == "orders\n"
