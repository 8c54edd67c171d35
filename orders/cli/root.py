"""The root of the command line: its options, its commands, and those of plugins."""

from collections import UserDict
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command_from_info

from .. import __version__, plugins
from ..errors import PluginFailed, describe
from ..settings import without_password
from . import help as helping
from .mistakes import ARGUMENTS, COMMAND, UnknownName, within
from .output import PLAIN_WIDTH, Console

PANELS = 60  # columns that the help needs to be drawn in panels
LONGEST = 200  # characters of a command's help that stand beside its name


class Commands(UserDict[str, Any]):
    """The commands by name; each is made when it is asked for, as to make all takes 10 ms.

    Args:
        markup: how Typer draws their help.
    """

    def __init__(self, markup: Any) -> None:
        super().__init__(dict.fromkeys(helping.GUIDE))
        self._markup = markup

    def __getitem__(self, name: str) -> Any:
        if self.data[name] is None:
            self.data[name] = self._made(name)
        return self.data[name]

    def _made(self, name: str) -> Any:
        """Make a command of the function in its module, with its place in the help."""
        guide = helping.GUIDE[name]
        part = import_module(f".{guide.module}", __package__).commands
        (found,) = (
            one for one in part.registered_commands if (one.name or one.callback.__name__) == name
        )
        found.cls, found.rich_help_panel = helping.Command, guide.panel
        command = get_command_from_info(
            found, pretty_exceptions_short=True, rich_markup_mode=self._markup
        )
        command.epilog = f"{found.epilog}\n\nNext: {guide.next}  # {guide.why}"
        return command


class PluggedGroup(TyperGroup):
    """The commands of `orders`, and those of the plugins that are named before the command."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = Commands(self.rich_markup_mode)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Load the plugins before all else, for --help shows their commands, too.

        Raises:
            PluginFailed: one cannot be used.
        """
        ctx.meta[ARGUMENTS] = list(args)
        with within(ctx):
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

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Return the command to run, and remember it for errors that do not.

        Raises:
            UnknownName: there is none of this name.
        """
        name = args[0]
        if not ctx.resilient_parsing and name not in self.commands:
            raise UnknownName("command", name, self.list_commands(ctx))
        found: tuple[Any, Any, list[str]] = super().resolve_command(ctx, args)
        ctx.meta[COMMAND] = typer.Context(found[1], info_name=name, parent=ctx)
        return found

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with within(ctx):
            return super().invoke(ctx)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, a section for each panel of the drawn help."""
        for panel, names in helping.panels(self, ctx).items():
            rows = [(name, self.commands[name].get_short_help_str(LONGEST)) for name in names]
            _write(formatter, panel, rows)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, and the variables that are heeded."""
        super().format_help(ctx, formatter)
        if self.rich_markup_mode is None:
            _write(formatter, "Environment", list(helping.ENVIRONMENT.items()))
        else:
            helping.draw_environment()

    def _add_commands(self, plugin: str, commands: Any) -> None:
        line = typer.Typer(rich_markup_mode=self.rich_markup_mode)
        line.add_typer(commands)
        try:
            added: dict[str, Any] = dict(typer.main.get_group(line).commands)
        except Exception as error:
            raise PluginFailed(plugin, describe(error)) from error
        if taken := added.keys() & self.commands.keys():
            raise PluginFailed(plugin, f"there is another command {', '.join(sorted(taken))}")
        for command in added.values():
            command.rich_help_panel = command.rich_help_panel or "Plugins"
        self.commands.update(added)


def _write(formatter: Any, title: str, rows: Sequence[tuple[str, str]]) -> None:
    lines = helping.laid_out(rows, formatter.width)
    formatter.write("\n".join([f"\n{title}:", *lines, ""]))


app = typer.Typer(
    name="orders",
    cls=PluggedGroup,
    help="The order system you can kill at any line: place orders, see every message, break it."
    "\n\nStart with orders demo; orders alone shows the state of the store here.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def run() -> int:
    """Run the command line; return the status to exit with."""
    console = Console()
    # Rich takes 50 ms to import, and breaks words where a panel is narrow.
    app.rich_markup_mode = "rich" if console.draws and console.width >= PANELS else None
    width = min(console.width, PLAIN_WIDTH)  # left to itself, it would be 50 at least
    return console.run(
        lambda: app(standalone_mode=False, prog_name="orders", obj=console, terminal_width=width)
    )


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
            envvar="ORDERS_DATA",
            show_envvar=False,  # the help has a place for variables
            metavar="STORE",
            help="A directory, postgresql://... or :memory:.",
        ),
    ] = "data",
    plugin: Annotated[  # noqa: ARG001 - is seen to before the commands are known
        list[str] | None,
        typer.Option(
            envvar="ORDERS_PLUGINS",
            show_envvar=False,
            metavar="NAME",
            help="A module that adds to the system.",
        ),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Remember the store, or show the start page where no command is given."""
    context.meta["data"] = data
    source = context.get_parameter_source("data")
    if source is not None and source.name == "COMMANDLINE":  # what is to be tried is tried there
        console: Console = context.obj
        console.store = without_password(data)
    if context.invoked_subcommand is None:
        helping.show_start_page(context)
