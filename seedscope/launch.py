"""`seedscope run`: a script or module as `__main__`, with a scope around it.

What needs torch is imported in the functions: the process that only starts the interpreter
anew does not.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import importlib.machinery
import os
import pkgutil
import sys
import types
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from .seeds import fresh_seed
from .support.process_start import REPLAY_VARIABLE, variables

if TYPE_CHECKING:
    from .scope import Deterministic, Scope

# Says to the interpreter that was started anew which seed it was started for.
_SEED_VARIABLE = "SEEDSCOPE_RUN_SEED"


class LaunchError(Exception):
    """There is nothing to run under that name, or no seed for it; one line says which."""


def launch(
    command: Sequence[str],
    *,
    is_module: bool,
    seed: int | None,
    deterministic: Deterministic,
    fill_uninitialized_memory: bool | None,
    log: str,
    restart: Sequence[str],
) -> None:
    """Run `command`, a script or module and its arguments, as `python` does.

    The process is replaced once by a new interpreter (`python restart...`), whose hash seed
    is set from its start, and the cuBLAS workspace for torch before 2.11; the second time
    it runs the command.

    Raises:
        LaunchError: there is no such script or module, or several ranks have no seed.
        BaseException: whatever ended the command; what there was to print is printed.
    """
    started_for = os.environ.pop(_SEED_VARIABLE, None)
    if started_for is None:
        if not is_module and not os.path.exists(command[0]):
            raise LaunchError(f"cannot run {command[0]}: there is no such file")
        _restart(_choose_seed(seed), restart)
    # Before the program's folder is on the path, where it may have modules of the same names.
    from .runs.process import set_command
    from .scope import explain, seeded

    set_command([sys.executable, *_interpreter_options(), *restart])
    sys.argv[:] = ["-m" if is_module else command[0], *command[1:]]
    try:
        main, code = _find(command[0], is_module)
    except SyntaxError as error:
        sys.excepthook(type(error), error.with_traceback(None), None)
        raise SystemExit(1) from None
    sys.modules["__main__"] = main
    scope = seeded(
        int(started_for),
        deterministic=deterministic,
        fill_uninitialized_memory=fill_uninitialized_memory,
        log=log,
    ).__enter__()
    scope.share()  # the program's own threads may open scopes
    ended: list[BaseException] = []
    # Python runs it when the program's threads have ended, and after what the program registers.
    atexit.register(_close, scope, ended)
    if seed is None and os.environ.get("RANK", "0") == "0":
        _say(f"run {str(scope.run_id)[:8]} of seed {scope.seed}, logged in {log}")
    if sys.flags.ignore_environment:
        _say("python -E and -I ignore PYTHONHASHSEED: hashes of strings differ in each run")
    try:
        if is_module:
            if main.__package__:
                importlib.import_module(main.__package__)
            sys.argv[0] = main.__file__ or command[0]
        exec(code, vars(main))
    except SystemExit as error:
        ended.append(error)
        raise
    except BaseException as error:
        ended.append(error)
        explain(error)
        _print_as_python_does(error, code)
        raise


def _close(scope: Scope, ended: list[BaseException]) -> None:
    from .scope import ScopeConflictError

    error = ended[0] if ended else None
    # The program may have left blocks of its own open; with the process they end too.
    with contextlib.suppress(ScopeConflictError):
        scope.__exit__(type(error), error, None)


def _say(text: str) -> None:
    # stderr may be closed, or its disk full: that is no reason not to run. Written past its
    # buffer, where what could not be written would fail again when Python ends.
    with contextlib.suppress(AttributeError, OSError, ValueError):
        os.write(sys.stderr.fileno(), f"seedscope: {text}\n".encode())


def _torch_version() -> str:
    """Return it without an import of torch, which takes a second."""
    from importlib import metadata

    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:  # built in place
        return ""


def _restart(seed: int, arguments: Sequence[str]) -> NoReturn:
    environment = {
        **os.environ,
        **variables(seed, os.environ.get("CUBLAS_WORKSPACE_CONFIG"), _torch_version()),
        _SEED_VARIABLE: str(seed),
    }
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    options = _interpreter_options()
    os.execve(sys.executable, [sys.executable, *options, *arguments], environment)


def _interpreter_options() -> list[str]:
    """The options that the interpreter was started with, such as `-X dev`."""
    options = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv)]
    if options and options[-1][-1] in "mc":  # -m seedscope, also at the end of -Bm
        last = options.pop()[:-1]
        options += [last] * (last != "-")
    return options


def _choose_seed(seed: int | None) -> int:
    if seed is not None:
        return seed
    if REPLAY_VARIABLE in os.environ:
        from .runs.process import replayed_seed

        if (replayed := replayed_seed()) is not None:
            return replayed
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return fresh_seed()
    needed = "several ranks need one seed: give it, with --seed N"
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise LaunchError(needed)
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    # torchrun keeps a store for its ranks before any process group is there.
    # https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.TCPStore
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=60))
        return int(store.compare_set("seedscope/run-seed", "", str(fresh_seed())))
    except RuntimeError as error:
        raise LaunchError(f"{needed} ({str(error).splitlines()[0]})") from error


def _find(name: str, is_module: bool) -> tuple[types.ModuleType, types.CodeType]:
    """Return a new `__main__` and its code, and make the import path what Python makes it."""
    main = types.ModuleType("__main__")
    vars(main).update(__builtins__=sys.modules["builtins"], __cached__=None)
    try:
        if is_module:
            _set_first_path(os.getcwd())
            return main, _load_spec(main, _locate(name), f"the module {name}")
        path = os.path.join(os.getcwd(), name)
        if os.path.isdir(path) or pkgutil.get_importer(path) is not None:  # or an archive
            _set_first_path(os.path.abspath(name))
            spec = importlib.machinery.PathFinder.find_spec("__main__", [os.path.abspath(name)])
            return main, _load_spec(main, spec, f"{name}, which needs a __main__.py")
        _set_first_path(os.path.dirname(os.path.realpath(name)))
        main.__file__ = path
        main.__loader__ = importlib.machinery.SourceFileLoader("__main__", path)
        with open(name, "rb") as file:
            return main, compile(file.read(), path, "exec", dont_inherit=True)
    except OSError as error:
        raise LaunchError(f"cannot run {name}: {error.strerror or error}") from error


def _locate(name: str) -> Any:
    """The spec of a module, or of a package's `__main__`, found without importing anything.

    What a package does when it is imported belongs into the scope.
    """
    spec: Any = None
    path = None
    full = ""
    for part in [*name.split("."), "__main__"]:
        full = f"{full}.{part}" if full else part
        finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
        spec = next(filter(None, (finder.find_spec(full, path) for finder in finders)), None)
        path = spec and spec.submodule_search_locations
        if path is None:
            return spec if full in (name, f"{name}.__main__") else None
    return spec


def _load_spec(main: types.ModuleType, spec: Any, what: str) -> types.CodeType:
    code = spec.loader.get_code(spec.name) if hasattr(spec and spec.loader, "get_code") else None
    if code is None:
        raise LaunchError(f"cannot run {what}: it is not there")
    main.__file__, main.__spec__ = spec.origin, spec
    main.__loader__, main.__package__ = spec.loader, spec.parent
    return code  # type: ignore[no-any-return]


def _set_first_path(folder: str) -> None:
    """Put the program's folder where the interpreter has put seedscope's own."""
    if getattr(sys.flags, "safe_path", False):  # python -P has neither
        return
    sys.path[0] = folder


def _print_as_python_does(error: BaseException, code: types.CodeType) -> None:
    """Print the traceback without the frames of this package.

    The interpreter, which the error goes on to, then prints nothing more, and ends with
    the exit code or the signal that it always ends with.
    """
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code is not code:
        traceback = traceback.tb_next
    if traceback is not None:
        error = error.with_traceback(traceback)
    sys.excepthook(type(error), error, error.__traceback__)
    sys.excepthook = lambda *_: None
