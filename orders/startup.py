"""A command's first moments, most of which go into imports, and its last one.

At first nothing is open yet, so Ctrl-C ends the process at once: KeyboardInterrupt in the midst
of an import would be printed as a traceback, swallowed by the import system, or crash a module
written in C. Nor is there garbage yet: to look for some takes 6 of 100 ms. In the end everything
is closed, and for Python to take apart what was imported would take another 5. Programs that
import this package are left alone.
"""

import gc
import os
import signal
import sys

OBSERVERS = {"bdb", "cProfile", "profile", "trace"}  # modules of who wants to see a program's end


def is_module() -> bool:
    """Return whether this process is ``python -m orders``."""
    *_, directory, name = ("", *sys.argv[0].split("/"))
    return (name == "-m" and "orders" in sys.orig_argv) or (directory, name) == (
        "orders",
        "__main__.py",
    )


# Whether this process is the command line, or has the name of its scripts; as it was begun, for a
# program may give itself the arguments of one.
_IS_COMMAND = is_module() or sys.argv[0].rpartition("/")[2] in {"orders", "cli.py"}


def begin() -> None:
    """Let Ctrl-C end a command at once, with status 130, and collect no garbage, until `end`."""
    if _IS_COMMAND:
        gc.disable()
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _end)


def end() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, and garbage be collected, as in any other program."""
    if _IS_COMMAND:
        gc.freeze()  # what was imported stays
        gc.enable()
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def leave(status: int, *, is_alone: bool) -> None:
    """End the process: a command at once, if nobody else has anything left to do in it.

    Args:
        status: to exit with.
        is_alone: whether only code of this package was run, which leaves nothing open.
    """
    import atexit  # noqa: PLC0415 - these three are for the end; until `begin`, Ctrl-C is loud
    from contextlib import suppress  # noqa: PLC0415
    from threading import active_count  # noqa: PLC0415

    is_awaited = active_count() > 1 or atexit._ncallbacks() > 0  # noqa: SLF001 - who else tells?
    if _IS_COMMAND and is_alone and not is_awaited and OBSERVERS.isdisjoint(sys.modules):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


def _end(*_: object) -> None:
    os._exit(130)


begin()
