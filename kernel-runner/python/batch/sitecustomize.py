"""Lets programs that a run starts ask the user: input() and getpass() go through the runner's
sockets, because standard input is empty.

The folder of this file is put in front of PYTHONPATH in that step alone.
"""
import os
import sys

VARIABLE = "_BACKEND_USER_INPUT"
UNAVAILABLE = "<user-input-unavailable>"


def run_the_images_own():
    """This file hides another of its name."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    here = os.path.dirname(os.path.abspath(__file__))
    others = [path for path in sys.path if os.path.abspath(path) != here]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        sys.modules["sitecustomize"] = module = module_from_spec(spec)
        spec.loader.exec_module(module)


def ask(address, prompt):
    import socket

    sys.stdout.write(str(prompt))
    sys.stdout.flush()
    sys.stderr.flush()
    answer = b""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        piece = connection.recv(4096)
        while piece:
            answer += piece
            piece = connection.recv(4096)
    text = answer.decode("utf-8", "replace")
    if text == UNAVAILABLE:
        raise EOFError("nobody can be asked")
    return text


def install(address):
    import builtins
    import getpass

    def input(prompt=""):
        """Asks the user for a line."""
        # A program that was given something to read, or reads it by itself, does not ask.
        if sys.stdin is not sys.__stdin__ or not is_empty(sys.stdin):
            return original(prompt)
        return ask(address, prompt)

    def ask_password(prompt="Password: ", stream=None, **_options):
        """Asks the user for a line that is not shown."""
        return ask(address + ".password", prompt)

    original = builtins.input
    builtins.input = input
    getpass.getpass = ask_password


def is_empty(stream):
    """True for the null device, which the runner gives."""
    try:
        null, given = os.stat(os.devnull), os.fstat(stream.fileno())
        return null.st_rdev == given.st_rdev
    except (AttributeError, OSError, ValueError):  # Closed, or not there at all.
        return False


if sys.version_info[0] >= 3:
    run_the_images_own()
    if VARIABLE in os.environ:
        install(os.environ[VARIABLE])
