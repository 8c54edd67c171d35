"""Wrong use, in our own words: what is wrong, and what to try.

Typer's errors carry what is needed; how they put it is not used.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from ..settings import without_password

UsageError: Any = typer.BadParameter.__base__  # which Typer does not export

# Where a context's `meta` has what was typed, and the context of the command at hand.
ARGUMENTS, COMMAND = "arguments", "command"
FEW = 8  # names that are worth listing
LONGEST = 200  # characters of a corrected command line that still help


class WrongUse(typer.BadParameter):
    """What was typed cannot be done; the hint is a command, or words that follow "try:"."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.hint = hint


class UnknownName(WrongUse):
    """What was given is none of the names that can stand there."""

    def __init__(
        self, kind: str, given: str, known: Collection[str], hint: str | None = None
    ) -> None:
        self.given, self.nearest = given, nearest(given, known)
        are_few = len(known) <= FEW and not self.nearest
        those = f"; there are {', '.join(known)}" if are_few else ""
        super().__init__(f"no {kind} {given!r}{those}", hint)


@contextmanager
def within(context: Any) -> Iterator[None]:
    """Have an error that does not know the context of its command learn it."""
    try:
        yield
    except UsageError as error:
        error.ctx = error.ctx or context.meta.get(COMMAND, context)
        raise


def nearest(given: str, known: Iterable[str]) -> str | None:
    """Return the name that was probably meant."""
    wanted, names = given.casefold(), {name.casefold(): name for name in known}
    begun = [name for name in names if wanted and name.startswith(wanted)]
    if len(begun) == 1:
        return names[begun[0]]
    from difflib import get_close_matches  # noqa: PLC0415 - only for who mistypes

    close = get_close_matches(wanted[:LONGEST], names, n=1)
    return names[close[0]] if close else None


def explain(error: Any) -> tuple[str, str]:
    """Return what is wrong, and what to try."""
    if error.ctx is None:
        return _plain(error), "orders --help"
    known = (_EXPLAINED.get(kind.__name__) for kind in type(error).__mro__)
    what, hint = next(filter(None, known))(error, error.ctx)
    return what, hint or f"{error.ctx.command_path} --help"


def _plain(error: Any) -> str:
    text: str = error.message.rstrip(".")
    return text[:1].lower() + text[1:]


def _of_ours(error: WrongUse, context: Any) -> tuple[str, str | None]:
    parameter: Any = error.param
    name = f"{_name(parameter, context)}: " if parameter else ""
    return f"{name}{error.message}", error.hint


def _unknown_name(error: UnknownName, context: Any) -> tuple[str, str | None]:
    return error.message, _corrected(context, error.given, error.nearest) or error.hint


def _missing(error: Any, context: Any) -> tuple[str, str | None]:
    name = _name(error.param, context)
    example = re.search(r"Example: (.*)", context.command.epilog or "")
    hint = "orders list" if name == "ORDER" else example and example[1]  # where the ids are
    return f"{context.command_path} needs {name}", hint


def _unknown_option(error: Any, context: Any) -> tuple[str, str | None]:
    given, path = error.option_name, context.command_path
    if context.parent and (option := _option(context.find_root(), given)):
        return f"{given} is an option of orders, not of {path}", _put_before(option, given, context)
    options = (name for parameter in context.command.params for name in parameter.opts)
    near = nearest(given, (name for name in options if name.startswith("-")))
    return f"{path} has no option {given}", _corrected(context, given, near)


def _unusable_option(error: Any, context: Any) -> tuple[str, str | None]:
    path, name = context.command_path, error.option_name
    option = _option(context, name)
    if option.is_flag:
        return f"{path} {name} takes no value", None
    command = "" if context.parent else " COMMAND"
    metavar = option.make_metavar(context)
    return f"{path} {name} needs a value, {metavar}", f"{path} {name} {metavar}{command}"


def _unusable_value(error: Any, context: Any) -> tuple[str, str | None]:
    if error.param is None:
        return _plain(error), None
    name, kind, given = _name(error.param, context), error.param.type, _value(error, context)
    if given is not None and (choices := [str(choice) for choice in getattr(kind, "choices", ())]):
        better = nearest(given, choices) or choices[0]
        what = f"{name} is one of {', '.join(choices)}, not {given!r}"
        return what, _corrected(context, given, better)
    if given is not None and kind.name.partition(" ")[0] in {"int", "float"}:
        least, most = getattr(kind, "min", None), getattr(kind, "max", None)
        number = "a whole number" if kind.name.startswith("int") else "a number"
        some = "" if least is None else f", {least} or more" if most is None else ""
        some = some if most is None else f" from {least} to {most}"
        return f"{name} wants {number}{some}, not {given!r}", _corrected(
            context, given, str(most if given.isdecimal() and most else least or 1)
        )
    return f"{name}: {_plain(error)}", None


def _other(error: Any, context: Any) -> tuple[str, str | None]:
    path = context.command_path
    extra = re.match(r"Got unexpected extra argument\(s\) \((.*)\)$", error.message, re.DOTALL)
    if extra is None:
        return f"{path} needs a command" if "Missing command" in error.message else _plain(
            error
        ), None
    takes = [_name(each, context) for each in context.command.params if _is_argument(each)]
    return f"{path} takes {' '.join(takes) or 'options'} only; {extra[1]!r} is too much", None


_EXPLAINED: Any = {  # by the name of the class, or of one that it is derived from
    "UnknownName": _unknown_name,
    "WrongUse": _of_ours,
    "MissingParameter": _missing,
    "NoSuchOption": _unknown_option,
    "BadOptionUsage": _unusable_option,
    "BadParameter": _unusable_value,
    "UsageError": _other,
}


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _name(parameter: Any, context: Any) -> str:
    name: str = parameter.make_metavar(context) if _is_argument(parameter) else parameter.opts[0]
    return name


def _option(context: Any, name: str) -> Any:
    return next((each for each in context.command.params if name in each.opts), None)


def _value(error: Any, context: Any) -> str | None:
    """Return which of the words that were typed the message is about: it begins with it."""
    typed = [word for words in context.meta[ARGUMENTS] for word in (words, words.partition("=")[2])]
    return next((word for word in typed if error.message.startswith(_beginnings(word))), None)


def _beginnings(word: str) -> tuple[str, ...]:
    try:
        return repr(word), f"{word} is", f"{float(word)} is"  # a number is named as it was read
    except ValueError:
        return repr(word), f"{word} is"


def _corrected(context: Any, wrong: str, right: str | None) -> str | None:
    """Return what was typed with the right word in the place of the wrong one."""
    if right is None:
        return None
    words = list(context.meta[ARGUMENTS])
    for number, word in enumerate(words):
        option, equals, value = word.partition("=")
        if word == wrong or (equals and option == wrong):
            words[number] = right + word[len(wrong) :]
        elif equals and value == wrong:
            words[number] = f"{option}={right}"
        else:
            continue
        return _command_line(context, words)
    return f"{context.command_path} {right}"


def _put_before(option: Any, given: str, context: Any) -> str | None:
    """Return what was typed with an option of `orders` where it belongs."""
    words = list(context.meta[ARGUMENTS])
    place = next((n for n, word in enumerate(words) if word.partition("=")[0] == given), None)
    if place is None:
        return None
    width = 1 if "=" in words[place] or option.is_flag else 2
    moved = words[place : place + width]
    if len(moved) < width:
        moved.append(option.make_metavar(context))
    return _command_line(context, moved + words[:place] + words[place + width :])


def _command_line(context: Any, words: Iterable[str]) -> str | None:
    import shlex  # noqa: PLC0415 - only for who mistypes

    shown = map(without_password, words)
    line = shlex.join([context.find_root().command_path, *shown])
    return line if len(line) <= LONGEST else None
