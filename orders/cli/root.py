"""The root of the command line: its options, its commands, and those of plugins."""

import gc
from contextlib import nullcontext, suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__, plugins
from ..errors import PluginFailed, describe
from . import demo, explaining, inspection, maintenance, ordering
from .output import Console


class PluggedGroup(TyperGroup):
    """The commands of `orders`, and those of the plugins that are named before the command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Load the plugins before all else, for --help shows their commands, too.

        Raises:
            PluginFailed: one cannot be used.
        """
        given, *_ = self.make_parser(ctx).parse_args(args=list(args))
        (option,) = (parameter for parameter in self.params if parameter.name == "plugin")
        values, _ = option.consume_value(ctx, given)
        names = [name.strip() for value in values or () for name in value.split(",")]
        ctx.meta["plugins"] = tuple(filter(None, names))
        # A shell that asks for completions is no place for an error.
        with suppress(PluginFailed) if ctx.resilient_parsing else nullcontext():
            for module in plugins.load(ctx.meta["plugins"]):
                if commands := getattr(module, "commands", None):
                    self._add_commands(module.__name__, commands)
        return super().parse_args(ctx, args)

    def _add_commands(self, plugin: str, commands: Any) -> None:
        line = typer.Typer(rich_markup_mode=self.rich_markup_mode)
        line.add_typer(commands)
        try:
            added = typer.main.get_group(line).commands
        except Exception as error:
            raise PluginFailed(plugin, describe(error)) from error
        if taken := added.keys() & self.commands.keys():
            raise PluginFailed(plugin, f"there is another command {', '.join(sorted(taken))}")
        self.commands.update(added)


app = typer.Typer(
    name="orders",
    cls=PluggedGroup,
    help="The order system you can kill at any line: place orders, see every message, break it.",
    epilog='Try: orders demo, then orders place "100 inch TV" "magic carpet", then orders list.',
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def run() -> int:
    """Run the command line; return the status to exit with."""
    gc.freeze()  # what is imported stays: without this, Python looks it all over again at exit
    console = Console()
    app.rich_markup_mode = "rich" if console.draws else None  # Rich takes 50 ms to import
    return console.run(lambda: app(standalone_mode=False, prog_name="orders", obj=console))


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"orders {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Option(
            envvar="ORDERS_DATA", metavar="STORE", help="A directory, or :memory: to try things."
        ),
    ] = "data",
    plugin: Annotated[  # noqa: ARG001 - is seen to before the commands are known
        list[str] | None,
        typer.Option(
            envvar="ORDERS_PLUGINS", metavar="NAME", help="A module that adds to the system."
        ),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Remember the store, or show the help where no command is given."""
    if context.invoked_subcommand is None:  # no_args_is_help would exit with 2
        print(context.get_help())
    context.meta["data"] = data


for part in (ordering, inspection, maintenance, demo, explaining):
    app.add_typer(part.commands)
