"""Python processes for tests without the seconds of their imports: forked from a process that has the libraries, and
nothing of ours, imported already.

`fork_python()` has subprocess start `python -m MODULE ...` and `python FILE.py ...` so. What starts is a process of its
own in every other respect, and a real child of the one that asked: pid, signals, exit code, session, working directory,
environment, umask and files are as after exec; but the hashes of texts, and so the order of sets, are the same in all.
What a fresh interpreter shows is tested with one: by --help, by -c, and where subprocess is told more (preexec_fn,
pass_fds, executable).
"""

import atexit
import ctypes
import gc
import importlib
import inspect
import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy

LIBRARIES = (
    "boto3",
    "cv2",
    "dvc.repo",
    "kfp.dsl.executor_main",
    "mlflow.models",
    "mlflow.pyfunc",
    "mlflow.store.db.utils",
    "mlflow.store.tracking.sqlalchemy_store",
    "pydantic",
    "rasterio",
    "safetensors.torch",
    "torch._dynamo",
    "torch.distributed.run",
    "torch.utils.data",
)
# Commands that start others, which fork, too. A process with threads cannot: it has a server of its own for that.
STARTING = {"components.launch", "components.params", "dvc", "kfp.dsl.executor_main", "mlflow", "pipeline.py"}
STARTING |= {"torch.distributed.run"}
# Variables that are read while libraries are imported: with others than the server's, the interpreter is fresh.
EARLY = re.compile(r"(KUBECONFIG|OMP|MKL|OPENBLAS|NPY|ATEN|ONEDNN|PYTHON(?!PATH$|UNBUFFERED$)).*")
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl
execute_child = subprocess.Popen._execute_child  # type: ignore[attr-defined]
Request = dict[str, Any]


def fork_python(env: Mapping[str, str], channel: socket.socket | None = None) -> None:
    """Has subprocess in this process fork what it can.

    env: of the server, which is started when it is first asked. channel: to one that runs.
    """
    names = list(inspect.signature(execute_child).parameters)[1:]
    pipes = names[names.index("p2cread") : names.index("restore_signals")]
    lock = threading.Lock()

    def execute(popen: Any, *given: Any) -> None:
        nonlocal channel
        options = dict(zip(names, given, strict=True))
        request = _request(options, env)
        if request is None:
            execute_child(popen, *given)
            return
        ends = (options["p2cread"], options["c2pwrite"], options["errwrite"])
        with lock:
            channel = channel or _start_server(env)
            files = [number if end == -1 else end for number, end in enumerate(ends)]
            socket.send_fds(channel, [json.dumps(request).encode()], files)
            popen.pid = int(channel.recv(100))
        popen._child_created = True
        popen._close_pipe_fds(*(options[name] for name in pipes))

    subprocess.Popen._execute_child = execute  # type: ignore[attr-defined]
    # A process whose parent has ended is our child: the server forks twice for that.
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


def _request(options: Mapping[str, Any], servers: Mapping[str, str]) -> Request | None:
    """What the server needs to know; None for what has to be started by exec."""
    env = dict(os.environ if options["env"] is None else options["env"])
    cwd = os.path.abspath(options["cwd"] or ".")
    words = [] if isinstance(options["args"], str | bytes | os.PathLike) else list(map(os.fspath, options["args"]))
    arguments = _arguments(words, env)
    special = any(options[name] for name in ("preexec_fn", "pass_fds", "executable", "shell"))
    early, theirs = ({key: value for key, value in each.items() if EARLY.match(key)} for each in (env, servers))
    customized = any(Path(path, "sitecustomize.py").exists() for path in env.get("PYTHONPATH", "").split(":"))
    threads = env.get("OMP_NUM_THREADS") != "1"  # which NumPy starts at import
    if not arguments or special or customized or threads or early != theirs or not os.path.isdir(cwd):
        return None
    session, group = options["start_new_session"], options["process_group"]
    os.umask(umask := os.umask(0o077))
    return {"arguments": arguments, "env": env, "cwd": cwd, "session": session, "group": group, "umask": umask}


def _arguments(words: list[str], env: dict[str, str]) -> list[str]:
    """What follows `python`; empty where this is no plain start of this Python."""
    if words[-2:-1] == ["-c"] and re.fullmatch(r"python -m [\w./ -]+", words[-1]):  # a stage of DVC, by a shell
        words = words[-1].split()
    elif "-m kfp.dsl.executor_main " in "".join(words[2:3]):  # a task of Kubeflow, whose code a shell writes to a file
        file = Path(tempfile.mkdtemp(), "ephemeral_component.py")
        file.write_text(words[3], encoding="utf-8")
        words = [sys.executable, "-m", "kfp.dsl.executor_main", "--component_module_path", str(file), *words[4:]]
        env["_KFP_RUNTIME"] = "true"
    first, *rest = words or [""]
    program = Path(shutil.which(first, path=env.get("PATH")) or "")
    if program.parent != Path(sys.executable).parent or "--help" in rest:
        return []
    if program.name == "dvc":
        return ["-m", "dvc", *rest]
    start = rest[rest[:1] == ["-u"] :][:1]
    return rest if program.name.startswith("python") and re.fullmatch(r"-m|.*\.py", "".join(start)) else []


def _start_server(env: Mapping[str, str]) -> socket.socket:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, __file__, str(far.fileno())]
    subprocess.Popen(command, pass_fds=[far.fileno()], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    far.close()
    return near


def _serve(channel: socket.socket) -> Request:
    """Answers requests with pids, until nobody can ask any more; returns in each process that is forked for one."""
    while True:
        message, files, _, _ = socket.recv_fds(channel, 1 << 20, 3)
        if not message:
            os._exit(0)
        told, tell = os.pipe()
        if middle := os.fork():
            os.close(tell)
            os.waitpid(middle, 0)
            channel.send(os.read(told, 100))
            for file in (*files, told):
                os.close(file)
        elif pid := os.fork():
            os.write(tell, str(pid).encode())
            os._exit(0)
        else:
            for file in (channel.detach(), told, tell):
                os.close(file)
            request: Request = json.loads(message)
            _enter(request, files)
            return request


def _enter(request: Request, files: Sequence[int]) -> None:
    """This process is what exec would have made of it, up to the first line of the program."""
    if request["session"]:
        os.setsid()
    elif request["group"] != -1:
        os.setpgid(0, request["group"])
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    os.umask(request["umask"])
    # What libraries took from the server's environment, or drew once, when they were imported.
    time.tzset()
    tempfile.tempdir = None
    numpy.random.seed()


def main(channel: socket.socket) -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    paths = [
        path for path in sys.path if path not in (str(Path(__file__).parent), *os.getenv("PYTHONPATH", "").split(":"))
    ]
    threads = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
    # With threads it cannot be forked, but for the one of Arrow's allocator, which is made for that.
    assert threads <= {Path(sys.executable).resolve().name, "python", "jemalloc_bg_thd"}, threads
    # torchrun asks for the module of each of its callers, often, and where one has none all modules are searched.
    inspect.modulesbyfile |= {"<frozen runpy>": "runpy", __file__: "runpy"}
    gc.collect()
    gc.freeze()  # what is there already need not be searched for garbage, and so not be copied, by each process
    request = _serve(channel)
    while STARTING & set(request["arguments"][:3]):
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork():
            far.close()
            fork_python(dict(os.environ), near)
            break
        near.close()
        request = _serve(far)

    first, *arguments = request["arguments"]
    unbuffered = "PYTHONUNBUFFERED" in os.environ or first == "-u"
    if first == "-u":
        first, *arguments = arguments
    sys.stdout.reconfigure(write_through=unbuffered)  # type: ignore[union-attr]
    place = os.getcwd() if first == "-m" else str(Path(first).resolve().parent)
    sys.path[:] = [place, *filter(None, os.getenv("PYTHONPATH", "").split(":")), *paths]
    code: object = None
    try:
        if first == "-m":
            sys.argv[:] = arguments
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv[:] = [first, *arguments]
            runpy.run_path(first, run_name="__main__")
    except SystemExit as end:
        code = end.code
    _leave(code)


def _leave(code: object) -> NoReturn:
    """Ends this process as the interpreter does, but leaves to the kernel what is in memory: to take it apart would
    copy every page of the server's, for most of a second.
    """
    if not (code is None or isinstance(code, int)):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code & 0xFF if isinstance(code, int) else code is not None)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
