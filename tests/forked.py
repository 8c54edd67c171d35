"""Processes by fork, as real as any, without the cost of a new interpreter.

As a script it is a server: it has imported the tool, reads calls of it from standard input and
writes their exit statuses to standard output, both pickled. A fork costs what its parent has in
memory, and this one is a third of what pytest is by the time it runs a test.
"""

import gc
import os
import pickle
import pkgutil
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from importlib import import_module

import orders
from orders import cli


def prepare():
    """Load what commands load late, or each fork would; leave it alone in garbage collection.

    The demos stay out: among them is a plugin, which is there only once it is loaded.
    """
    for module in pkgutil.walk_packages(orders.__path__, "orders."):
        if not module.name.startswith(("orders.demos", "orders.__main__")):
            import_module(module.name)
    gc.collect()
    gc.freeze()


def live(function, *arguments):
    """Be nothing but this function from here on; what it returns is the exit status."""
    status = 70
    try:
        signal.alarm(1800)  # nothing that hangs hangs for ever
        status = function(*arguments) or 0
    except SystemExit as exit_:
        status = exit_.code
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)


def be_the_tool(arguments, env, streams):
    """Make this forked process the tool, its standard streams these open files."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")  # as Python opens it
    os.environ.update(env)
    time.tzset()
    tempfile.tempdir = None  # which is looked up once
    sys.argv = ["orders", *arguments]
    cli.main()


def called(directory, environment, arguments, names):
    """Be the tool in a directory and environment, its standard streams the files of these names."""
    os.chdir(directory)
    os.environ.clear()
    typed, *printed = names
    written = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    streams = [os.open(typed, os.O_RDONLY), *(os.open(name, written) for name in printed)]
    be_the_tool(arguments, environment, streams)


def serve():
    prepare()
    with suppress(EOFError):
        while True:
            call = pickle.load(sys.stdin.buffer)
            if not (pid := os.fork()):
                live(called, *call)
            _, status = os.waitpid(pid, 0)
            pickle.dump(os.waitstatus_to_exitcode(status), sys.stdout.buffer)
            sys.stdout.flush()


if __name__ == "__main__":
    serve()
