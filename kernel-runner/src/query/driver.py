"""Runs the user's code in the image's interpreter, one piece after the other.

The runner passes two sockets. Over `commands` it sends pieces of code, answers to
input() and questions for completions; over `output` this side sends what cannot go
through standard output and error: images, HTML, tracebacks. Frames are a big-endian
length of four bytes and JSON.

Standard output and error are pipes that the runner reads itself, so that the output of
subprocesses and of C code is caught too. What is sent over `output` is answered with
its number once the runner has emptied the pipes, which keeps everything in order.

Works with Python 3.6 and later, on the standard library alone. If IPython can be
imported, its shell runs the code.
"""
import ast
import base64
import builtins
import getpass
import importlib.util
import io
import json
import linecache
import os
import select
import signal
import sys
import threading
import time
import traceback
import types

FILE = "<kernel-runner>"
MEDIA = ("image/png", "image/jpeg", "image/svg+xml", "text/html")
# The runner takes no larger frame, and clients show no larger picture.
LARGEST_FRAME = 15 << 20


class Channel:
    """A socket with frames in both directions."""

    def __init__(self, fd):
        self.fd = fd
        self.buffer = bytearray()
        os.set_inheritable(fd, False)

    def send(self, **message):
        body = json.dumps(message, ensure_ascii=False).encode("utf-8", "replace")
        if len(body) > LARGEST_FRAME:
            text = "kernel-runner: an output of %d bytes is too large to show\n" % len(body)
            return self.send(number=message["number"], kind="stderr", text=text)
        view = memoryview(len(body).to_bytes(4, "big") + body)
        while view:
            view = view[os.write(self.fd, view) :]

    def has_frame(self):
        size = int.from_bytes(self.buffer[:4], "big")
        return len(self.buffer) >= 4 and len(self.buffer) >= 4 + size

    def receive(self):
        while not self.has_frame():
            piece = os.read(self.fd, 1 << 16)
            if not piece:
                os._exit(0)  # The runner is gone, and the container with it.
            self.buffer += piece
        end = 4 + int.from_bytes(self.buffer[:4], "big")
        frame = bytes(self.buffer[4:end])
        del self.buffer[:end]
        return json.loads(frame)


class Interrupts:
    """SIGINT ends the user's code, and never our own: not between runs, and not in the
    middle of a frame."""

    def __init__(self):
        self.running = False
        self.shields = 0
        self.postponed = False
        signal.signal(signal.SIGINT, self.on_signal)

    def on_signal(self, _number, _frame):
        __tracebackhide__ = True
        if self.shields:
            self.postponed = True
        elif self.running:
            raise KeyboardInterrupt

    # Signals are delivered to the main thread: shields of other threads do nothing.
    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self.shields += 1

    def __exit__(self, *_error):
        __tracebackhide__ = True
        if threading.current_thread() is threading.main_thread():
            self.shields -= 1
            if self.postponed and not self.shields:
                self.postponed = False
                if self.running:
                    raise KeyboardInterrupt


class Stream(io.TextIOWrapper):
    """Standard output or error. Lines are flushed at once; of what is shorter, print()
    writes at least two pieces, and the second one flushes unless it comes quickly after
    another flush. So a line stays in one piece, and dots without lines are seen."""

    def __init__(self, fd, link):
        raw = io.BufferedWriter(io.FileIO(fd, "wb", closefd=False))
        super().__init__(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        self.link = link
        self.partial = False
        self.flushed = 0.0
        self.mode = "w"

    @property
    def name(self):
        return "<stdout>" if self.fileno() == 1 else "<stderr>"

    def write(self, text):
        self.link.writes(self)
        partial, self.partial = self.partial, "\n" not in text
        count = super().write(text)
        if partial and self.partial:
            now = time.monotonic()
            if now - self.flushed > 0.05:
                self.flushed, self.partial = now, False
                self.flush()
        return count

    def close(self):
        self.flush()


class Input(io.TextIOBase):
    """Standard input: asks the client for a line."""

    name = "<stdin>"
    encoding = "utf-8"

    def __init__(self, link):
        self.link = link

    def readable(self):
        return True

    def readline(self, _size=-1):
        return self.link.ask(False) + "\n"

    def read(self, _size=-1):
        return self.readline()

    def fileno(self):
        return 0

    def close(self):
        pass


class Link:
    """What the user's code has of the runner."""

    def __init__(self, commands, output, interrupts):
        self.commands = commands
        self.output = output
        self.interrupts = interrupts
        self.lock = threading.Lock()
        self.pid = os.getpid()
        self.number = 0
        self.last = None
        self.stdout = Stream(1, self)
        self.stderr = Stream(2, self)
        if hasattr(os, "register_at_fork"):  # Since Python 3.7
            os.register_at_fork(before=self.flush, after_in_child=self.forked)

    def forked(self):
        self.lock = threading.Lock()

    def flush(self):
        for stream in {id(s): s for s in (self.stdout, self.stderr, sys.stdout, sys.stderr)}.values():
            try:
                stream.flush()
            except Exception:
                pass  # The user may have put anything there, or closed it.

    def writes(self, stream):
        """Called before output to a stream: what the other one has goes first."""
        last, self.last = self.last, stream
        if last is not None and last is not stream:
            last.flush()
            self.post(kind="sync")

    def post(self, **message):
        """Sends something to show, and returns when it has its place in the output. Children
        made by fork have no part in this."""
        __tracebackhide__ = True
        if os.getpid() != self.pid:
            return
        # A second thread that only keeps order does not wait for the first.
        if not self.lock.acquire(blocking=message["kind"] != "sync"):
            return
        try:
            with self.interrupts:
                self.number += 1
                self.output.send(number=self.number, **message)
            self.acknowledged(self.number)
        finally:
            self.lock.release()

    def acknowledged(self, number):
        # An interrupt may leave answers unread: they are skipped later.
        __tracebackhide__ = True
        while True:
            if not self.output.has_frame():
                select.select([self.output.fd], [], [])
            with self.interrupts:
                if self.output.receive()["number"] >= number:
                    return

    def show(self, kind, **message):
        self.flush()
        self.post(kind=kind, **message)

    def show_bundle(self, data):
        """Shows one of several representations, by MIME type."""
        kinds = [kind for kind in data if kind in MEDIA] or [kind for kind in data if kind == "text/plain"]
        if not kinds:
            return
        kind, value = kinds[0], data[kinds[0]]
        if kind == "text/html":
            self.show("html", text=str(value))
        elif kind == "image/svg+xml":
            self.show("media", mime=kind, data=value.decode() if isinstance(value, bytes) else str(value))
        elif kind in MEDIA:
            if isinstance(value, bytes):
                value = base64.b64encode(value).decode()
            self.show("media", mime=kind, data="data:%s;base64,%s" % (kind, "".join(value.split())))
        else:
            self.stdout.write(str(value))
            self.stdout.flush()

    def ask(self, is_password, prompt=""):
        """A line of the user, without its end."""
        __tracebackhide__ = True
        if os.getpid() != self.pid or threading.current_thread() is not threading.main_thread():
            raise RuntimeError("input is available in the main thread of the main process only")
        sys.stdout.write(str(prompt))
        self.show("input", is_password=is_password)
        while True:
            if not self.commands.has_frame():
                select.select([self.commands.fd], [], [])
            with self.interrupts:
                message = self.commands.receive()
            if message["kind"] == "input":
                return message["text"]

    def install(self):
        sys.stdout = sys.__stdout__ = self.stdout
        sys.stderr = sys.__stderr__ = self.stderr
        sys.stdin = sys.__stdin__ = Input(self)

        def input(prompt=""):
            """Asks the user for a line."""
            __tracebackhide__ = True
            return self.ask(False, prompt)

        def getpass_(prompt="Password: ", stream=None, **_options):
            """Asks the user for a line that is not shown."""
            __tracebackhide__ = True
            return self.ask(True, prompt)

        getpass_.__name__ = "getpass"
        builtins.input = input
        getpass.getpass = getpass_


class PlainShell:
    """Runs code with nothing but the standard library."""

    def __init__(self, module, link):
        self.namespace = module.__dict__
        self.link = link
        self.count = 0
        self.flags = 0
        sys.displayhook = self.display
        sys.excepthook = self.show_error

    def run(self, code):
        self.count += 1
        name = "<input-%d>" % self.count
        linecache.cache[name] = (len(code), None, code.splitlines(True), name)
        try:
            tree = self.compile(code, name, "exec", ast.PyCF_ONLY_AST)
            last = None
            if tree.body and isinstance(tree.body[-1], ast.Expr):
                last = ast.Expression(tree.body.pop().value)
            exec(self.compile(tree, name, "exec"), self.namespace)
            if last is not None:
                sys.displayhook(eval(self.compile(last, name, "eval"), self.namespace))
        except SystemExit as error:
            if error.code not in (None, 0):
                sys.stderr.write("%s\n" % (error.code if isinstance(error.code, str) else "SystemExit: %s" % error.code))
        except BaseException:
            sys.excepthook(*sys.exc_info())

    def compile(self, source, name, mode, flags=0):
        code = compile(source, name, mode, flags | self.flags, dont_inherit=True)
        if isinstance(code, types.CodeType):
            import __future__

            # `from __future__ import …` lasts, as in the interactive interpreter.
            for feature in __future__.all_feature_names:
                self.flags |= code.co_flags & getattr(__future__, feature).compiler_flag
        return code

    def display(self, value):
        if value is None:
            return
        builtins._ = None
        sys.stdout.write(repr(value))
        sys.stdout.flush()
        builtins._ = value

    def show_error(self, kind, error, trace):
        sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
        report = traceback.TracebackException(kind, error, trace)
        hide_own_frames(report, set())
        if report.stack or report.__cause__ or report.__context__:
            lines = report.format()
        else:
            lines = report.format_exception_only()
        sys.stderr.write("".join(lines))

    def complete_at(self, code, row, column):
        import rlcompleter

        line = code.split("\n")[row][:column]
        start = len(line)
        while start and (line[start - 1].isalnum() or line[start - 1] in "_."):
            start -= 1
        if start == len(line):
            return []
        completer = rlcompleter.Completer(self.namespace)
        found = []
        while len(found) < 1000:
            match = completer.complete(line[start:], len(found))
            if match is None:
                break
            found.append(match.rstrip("() :"))
        return found


def hide_own_frames(report, seen):
    if report is None or id(report) in seen:
        return
    seen.add(id(report))
    report.stack[:] = [frame for frame in report.stack if frame.filename != FILE]
    hide_own_frames(report.__cause__, seen)
    hide_own_frames(report.__context__, seen)


def ipython_shell(module, link):
    """A shell of IPython that shows things through the runner."""
    from IPython.core.displayhook import DisplayHook
    from IPython.core.displaypub import DisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets import Type
    from traitlets.config import Config

    class Hook(DisplayHook):
        def write_output_prompt(self):
            pass

        def write_format_data(self, format_dict, md_dict=None):
            link.show_bundle(format_dict)

        def finish_displayhook(self):
            pass

    class Publisher(DisplayPublisher):
        def publish(self, data, metadata=None, *_source, **_options):
            link.show_bundle(data)

        def clear_output(self, wait=False):
            pass

    class Shell(InteractiveShell):
        displayhook_class = Type(Hook)
        display_pub_class = Type(Publisher)

        def _showtraceback(self, etype, evalue, stb):
            link.show("stderr", text="\n".join(stb))

        def enable_gui(self, gui=None):
            pass

        def ask_exit(self):
            pass

        def init_io(self):
            pass

        def run(self, code):
            self.run_cell(code, store_history=True)

        def complete_at(self, code, row, column):
            line = code.split("\n")[row]
            text, matches = self.complete("", line, min(column, len(line)))
            return list(matches)

    config = Config()
    config.HistoryManager.enabled = False  # It keeps a thread and a database.
    config.IPCompleter.use_jedi = False  # It reads files for seconds.
    shell = Shell.instance(config=config, user_module=module)
    link.install()  # The shell may have wrapped the streams.
    if importlib.util.find_spec("matplotlib_inline"):
        os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    return shell


def find_user_packages():
    """Lets code import what was installed since the interpreter started."""
    import site

    importlib.invalidate_caches()
    try:
        folder = site.getusersitepackages()
        if site.ENABLE_USER_SITE and folder not in sys.path and os.path.isdir(folder):
            site.addsitedir(folder)
    except Exception:
        pass  # Interpreters without a home have no such folder.


def run(shell, link, interrupts, commands, code):
    link.last = None
    find_user_packages()
    try:
        try:
            with interrupts:
                interrupts.running = True
                commands.send(kind="started")
            shell.run(code)
        finally:
            interrupts.running = False
    except KeyboardInterrupt:
        # It came just before or after the code, so there is no place to show.
        interrupts.running = False
        sys.stderr.write("KeyboardInterrupt\n")
    except BaseException:
        traceback.print_exc()
    link.flush()
    commands.send(kind="done")


def complete(shell, code, row, column):
    try:
        if row is None:
            lines = code.split("\n")
            row, column = len(lines) - 1, len(lines[-1])
        return [str(match) for match in shell.complete_at(code, row, column)]
    except Exception:
        return []


def main():
    commands, output = (Channel(int(number)) for number in sys.argv[1:3])
    sys.argv = [""]
    interrupts = Interrupts()
    link = Link(commands, output, interrupts)
    link.install()
    module = types.ModuleType("__main__")
    module.__builtins__ = builtins
    sys.modules["__main__"] = module
    try:
        shell = ipython_shell(module, link)
    except Exception:
        link.install()
        shell = PlainShell(module, link)
    commands.send(kind="ready")
    while True:
        message = commands.receive()
        if message["kind"] == "run":
            run(shell, link, interrupts, commands, message["code"])
        elif message["kind"] == "complete":
            matches = complete(shell, message["code"], message["row"], message["column"])
            link.flush()
            commands.send(kind="completions", id=message["id"], matches=matches)


main()
