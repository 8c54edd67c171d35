"""Plugins: modules that add to the system, by name.

A plugin has a function `install(app)`, called before anything is recovered: there it registers
handlers, subscribes, follows the log with projections and policies. If it has `commands`, a
`typer.Typer`, these become commands of the command line as well.
"""

import sys
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType

from .errors import OrdersError, PluginFailed, describe

loaded: set[str] = set()
"""The names of all modules that were to be plugins of this process."""


def load(names: Iterable[str]) -> list[ModuleType]:
    """Import these modules; the current directory is looked in, too.

    Raises:
        PluginFailed: one cannot be imported, or is no plugin.
    """
    if "" not in sys.path:
        sys.path.append("")
    names = list(dict.fromkeys(names))
    loaded.update(names)
    return [_load(name) for name in names]


def install(plugin: ModuleType, app: object) -> None:
    """Have a plugin add itself to an application.

    Raises:
        PluginFailed: it raises something.
    """
    try:
        plugin.install(app)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginFailed(plugin.__name__, _reason(error)) from error


def _load(name: str) -> ModuleType:
    try:
        plugin = import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginFailed(name, _reason(error)) from error
    if not callable(getattr(plugin, "install", None)):
        raise PluginFailed(name, "it has no function install(app)")
    return plugin


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, OrdersError) else describe(error)
