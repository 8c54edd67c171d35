"""The command that explains the words of the field, one screen each.

The texts are Markdown files in `explain/`: the word, the same in one line, what it is and why,
where it stands in the code, and commands to try.
"""

from pathlib import Path
from typing import Annotated

import typer

from .mistakes import UnknownName, WrongUse
from .output import Console

TEXTS = Path(__file__).with_name("explain")

commands = typer.Typer()


def complete_word(incomplete: str) -> list[str]:
    """Return the words that begin with what is typed."""
    return [path.stem for path in _texts() if path.stem.startswith(incomplete.lower())]


@commands.command(epilog="Example: orders explain outbox")
def explain(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WORD]",
            help="As much of it as is unambiguous.",
            autocompletion=complete_word,
        ),
    ] = None,
) -> None:
    """Explain a word of the field, on one screen; without one, list them."""
    console: Console = context.obj
    if words is None:
        console.table(("Word", "In short"), [_in_short(path) for path in _texts()])
        console.say("Each with a command to try: orders explain WORD.")
        return
    text = find(" ".join(words)).read_text("utf-8")
    if console.draws:
        from . import rendering  # noqa: PLC0415 - Rich takes 50 ms to import

        rendering.show(rendering.page(text))
    else:
        console.lines(text.splitlines())


def find(word: str) -> Path:
    """Return the text on a word: in any case, with hyphens or spaces, or how a part of it begins.

    Raises:
        UnknownName: it fits none.
        WrongUse: it fits several.
    """
    texts = {path.stem.replace("-", " "): path for path in _texts()}
    wanted = " ".join(word.casefold().replace("-", " ").split())
    fitting = (
        [name for name in texts if name == wanted],
        [name for name in texts if name.startswith(wanted)],
        [name for name in texts if f" {wanted}" in name],
    )
    found = next(filter(None, fitting), [])
    if len(found) == 1:
        return texts[found[0]]
    if found:
        fits = f"{word!r} fits {len(found)} words: {', '.join(found)}"
        raise WrongUse(fits, f"orders explain {found[0]}")
    raise UnknownName("word", word, texts, "orders explain")


def _texts() -> list[Path]:
    return sorted(TEXTS.glob("*.md"), key=lambda path: path.stem)


def _in_short(path: Path) -> tuple[str, str]:
    title, _, summary, *_ = path.read_text("utf-8").splitlines()
    return title.removeprefix("# "), summary
