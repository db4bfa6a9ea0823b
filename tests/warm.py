"""The shell's commands, run by forks of a process that has already imported what they work with.

A child is the process that a user's command would be, less the seconds in which Python imports torch and Lightning: it has its own arguments, folder,
environment and output, and ends as an interpreter does. What is claimed of the start itself is tested with new interpreters.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Running:
    """A command that was started, with what tests use of `subprocess.Popen`."""

    def __init__(self, server, pid, output):
        self.server, self.pid, self.output = server, pid, output
        self.returncode = None

    def poll(self):
        if self.returncode is None:
            self.returncode = self.server.ask(["poll", self.pid])
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout=300.0):
        """Wait for its end; what it wrote to its two outputs."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError(f"it did not end in {timeout:g} s")
            time.sleep(0.01)
        return tuple(Path(f"{self.output}.{name}").read_text() for name in ("out", "err"))


class Server:
    """The process that is forked, from a test's side."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="lobit-warm-")
        self.count = 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, message):
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, kind, what, cwd, env):
        self.count += 1
        output = str(Path(self.folder.name) / str(self.count))
        return Running(self, self.ask(["start", kind, what, str(cwd or Path.cwd()), env, output]), output)


@functools.cache
def server():
    """One for all tests of this process; it ends with the end of its input."""
    return Server()


def start(*arguments, cwd=None, **env):
    """Start ``lobit`` with arguments."""
    return server().start("lobit", [str(word) for word in arguments], cwd, env)


def finished(running):
    out, err = running.communicate()
    return subprocess.CompletedProcess([], running.returncode, out, err)


def lobit(*arguments, cwd=None, **env):
    """Run ``lobit`` to its end."""
    return finished(start(*arguments, cwd=cwd, **env))


def python(code, cwd=None, **env):
    """Run a program to its end, in which much is imported already."""
    return finished(server().start("python", code, cwd, env))


def child(kind, what, cwd, env, output):
    """Become the process that was asked for."""
    for handle, target in enumerate((os.devnull, f"{output}.out", f"{output}.err")):
        opened = os.open(target, os.O_RDONLY if handle == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, handle)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  # for as long as the process lives
    os.chdir(cwd)
    os.environ.update(env)
    if kind == "python":
        exec(compile(what, "<warm>", "exec"), {"__name__": "__main__"})
        return
    from lobit.cli import main

    sys.argv = ["lobit", *what]
    main()


def prepare():
    """Import what commands import when they run, and trace a net, which imports the rest."""
    import torch.utils.tensorboard
    import tqdm

    import lobit.cli.app
    import lobit.report.about
    import lobit.report.evaluate
    import lobit.report.run_page
    import lobit.report.sweep
    import lobit.training
    from lobit.data import load_data
    from lobit.nn import Linear

    torch.set_num_threads(1)
    tqdm.tqdm.monitor_interval = 0  # a thread that torch.export would start
    load_data("digits")
    with tempfile.TemporaryDirectory() as folder:
        net = torch.nn.Sequential(Linear(8, 4, input_quantizer="sign", weight_quantizer="sign")).eval()
        lobit.export(net, torch.ones(2, 8), Path(folder) / "net.lobit")
    tasks = len(list(Path("/proc/self/task").iterdir()))
    assert tasks == 1, f"{tasks} threads: a fork would lack all but one"


def main():
    prepare()
    ended = {}
    for line in sys.stdin:
        what, *rest = json.loads(line)
        if what == "start":
            process = os.fork()
            if process == 0:
                return child(*rest)
            answer = process
        else:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(rest[0], os.WNOHANG)
                if pid:
                    ended[pid] = os.waitstatus_to_exitcode(status)
            answer = ended.get(rest[0])
        print(json.dumps(answer), flush=True)
    return None


if __name__ == "__main__":
    main()
