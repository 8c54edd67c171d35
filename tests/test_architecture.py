"""The shape of the package: what an import costs, how long files are, what is documented.

Which package may import which is checked by import-linter, and who may import which library by
ruff; see pyproject.toml. Here stands what these cannot tell.
"""

import ast
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from orders.cli import app
from orders.cli.help import GUIDE

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "orders"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {file: ast.parse(file.read_text()) for file in FILES}

AUDIT = """
import pkgutil, sys, importlib
import nats, psycopg  # which read their own version from a file
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


def run(script, *arguments, data="store"):
    return subprocess.run(
        [sys.executable, "-B", "-c", script, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "ORDERS_DATA": str(data)},
    )


# Importing


def test_importing_opens_no_file_and_starts_and_connects_nothing():
    result = run(AUDIT)
    assert (result.stdout, result.stderr) == ("[]\n", "")


DEAR = {"rich", "pygments", "pydantic", "asyncio", "concurrent", "email", "http", "unittest"}
DEAR |= {"logging", "sqlite3", "xml", "csv", "tempfile", "random", "importlib.metadata"}
UNUSED = {f"orders.{name}" for name in ("cli.rendering", "demos", "queries.trace")}
UNUSED |= {f"orders.tools.{name}" for name in ("bench", "copy", "doctor", "import_export")}
UNUSED |= {"orders.application.worker", "orders.tools.metrics"}
UNUSED |= {"orders.projections.runners", "orders.adapters.memory", "orders.adapters.files.faults"}
UNUSED |= {"orders.adapters.postgres", "psycopg", "orders.adapters.nats", "nats"}
FOLLOWING = {"orders.projections"}
OTHERS = {f"orders.cli.{guide.module}" for guide in GUIDE.values()}
OTHERS -= {"orders.cli.help", "orders.cli.ordering"}


@pytest.mark.parametrize(
    ("arguments", "unused"),
    [
        (["list"], UNUSED | FOLLOWING | OTHERS),
        (["list", "--json"], UNUSED | FOLLOWING | OTHERS),
        (["place", "rope"], UNUSED | OTHERS),
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
    assert len(file.read_text().splitlines()) <= 400


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
