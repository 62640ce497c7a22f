"""`seedscope run`: a script or module as `__main__`, with a scope around it.

What needs torch is imported in the functions: the process that only starts the interpreter
anew does not.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import pkgutil
import sys
import threading
import types
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from .children import REPLAY_VARIABLE, variables
from .seeds import fresh_seed

if TYPE_CHECKING:
    from .scope import Deterministic

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
    and cuBLAS workspace are set from its start; the second time it runs the command.

    Raises:
        LaunchError: there is no such script or module, or several ranks have no seed.
        BaseException: whatever ended the command; what there was to print is printed.
    """
    started_for = os.environ.pop(_SEED_VARIABLE, None)
    if started_for is None:
        if not is_module and not os.path.exists(command[0]):
            raise LaunchError(f"cannot run {command[0]}: there is no such file")
        _restart(_choose_seed(seed), restart)
    try:
        main, code = _find(command[0], is_module)
    except SyntaxError as error:
        sys.excepthook(type(error), error.with_traceback(None), None)
        raise SystemExit(1) from None
    from .runlog import set_command
    from .scope import seeded

    sys.argv[:] = [main.__file__ or command[0], *command[1:]] if is_module else list(command)
    sys.modules["__main__"] = main
    set_command([sys.executable, *restart])
    scope = seeded(
        int(started_for),
        deterministic=deterministic,
        fill_uninitialized_memory=fill_uninitialized_memory,
        log=log,
    )
    try:
        with scope as opened:
            opened.share()  # the program's own threads may open scopes
            if seed is None and os.environ.get("RANK", "0") == "0":
                run = f"run {str(opened.run_id)[:8]} of seed {opened.seed}"
                print(f"seedscope: {run}, logged in {log}", file=sys.stderr, flush=True)
            try:
                exec(code, vars(main))
            except SystemExit:
                _join_threads()
                raise
            _join_threads()
    except SystemExit:
        raise
    except BaseException as error:
        _print_as_python_does(error, code)
        raise


def _restart(seed: int, arguments: Sequence[str]) -> NoReturn:
    environment = {
        **os.environ,
        **variables(seed, os.environ.get("CUBLAS_WORKSPACE_CONFIG")),
        _SEED_VARIABLE: str(seed),
    }
    options = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv)]  # such as -X dev
    if options[-1:] == ["-m"]:
        options.pop()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execve(sys.executable, [sys.executable, *options, *arguments], environment)


def _choose_seed(seed: int | None) -> int:
    if seed is not None:
        return seed
    if REPLAY_VARIABLE in os.environ:
        from .runlog import replayed_seed

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
    folder = os.getcwd() if is_module else os.path.dirname(os.path.realpath(name))
    main = types.ModuleType("__main__")
    try:
        if is_module or _is_container(name):
            if not is_module:
                folder = os.path.abspath(name)
            _set_first_path(folder)
            code = _load_module(main, name) if is_module else _load_inside(main, folder)
        else:
            _set_first_path(folder)
            main.__file__ = os.path.abspath(name)
            main.__spec__ = None
            with open(name, "rb") as file:
                code = compile(file.read(), main.__file__, "exec", dont_inherit=True)
    except OSError as error:
        raise LaunchError(f"cannot run {name}: {error.strerror or error}") from error
    vars(main)["__builtins__"] = sys.modules["builtins"]
    return main, code


def _is_container(path: str) -> bool:
    """Whether it is a folder or an archive, which has a `__main__` inside."""
    return os.path.isdir(path) or pkgutil.get_importer(os.path.abspath(path)) is not None


def _load_module(main: types.ModuleType, name: str) -> types.CodeType:
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name = f"{name}.__main__"
            spec = importlib.util.find_spec(name)
    except (ImportError, ValueError) as error:
        raise LaunchError(f"cannot run the module {name}: {error}") from error
    return _load_spec(main, spec, f"the module {name}")


def _load_inside(main: types.ModuleType, container: str) -> types.CodeType:
    spec = importlib.machinery.PathFinder.find_spec("__main__", [container])
    return _load_spec(main, spec, f"{container}, which needs a __main__.py")


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


def _join_threads() -> None:
    """Wait, inside the scope, for the threads for which Python waits at its end."""
    own = threading.current_thread()
    while waiting := [t for t in threading.enumerate() if not t.daemon and t is not own]:
        for thread in waiting:
            thread.join()


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
