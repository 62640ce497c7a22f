"""`seedscope run`: a script or module as `__main__`, with a scope around it.

The functions import the modules that need torch, so that the process that only restarts the
interpreter does not load torch.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import importlib.machinery
import os
import sys
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..support.remarks import write_error
from .interpreter import SEED_VARIABLE, LaunchError, choose_seed, interpreter_options, start_anew
from .program import find_program, print_as_python_does

if TYPE_CHECKING:
    from ..scope.scope import Scope
    from ..support.modes import Deterministic


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

    The first call replaces the process by a new interpreter (`python restart...`), which starts
    with the hash seed and, for torch before 2.11, the cuBLAS workspace. The call in the new
    interpreter runs the command.

    Raises:
        LaunchError: the script or module does not exist, or several ranks have no seed.
        BaseException: the exception that ended the command, with the traceback printed.
    """
    started_for = os.environ.pop(SEED_VARIABLE, None)
    if started_for is None:
        if not is_module and not os.path.exists(command[0]):
            raise LaunchError(f"cannot run {command[0]}: there is no such file")
        start_anew(choose_seed(seed), restart)
    # Imported before the program's folder is on the path: its modules may have the same names.
    from ..runs.log import RunLog
    from ..runs.process import set_command
    from ..scope.seeded import seeded

    set_command([sys.executable, *interpreter_options(), *restart])
    sys.argv[:] = ["-m" if is_module else command[0], *command[1:]]
    main, code = _find_or_exit(command[0], is_module)
    sys.modules["__main__"] = main
    kept = RunLog(log)
    scope = seeded(
        int(started_for),
        deterministic=deterministic,
        fill_uninitialized_memory=fill_uninitialized_memory,
        log=kept,
    ).__enter__()
    scope.share()  # the program's own threads may open scopes
    ended: list[BaseException] = []
    # Python calls it after the program's threads have ended and its own exit functions have run.
    atexit.register(_close, scope, ended)
    if seed is None and os.environ.get("RANK", "0") == "0":
        where = f"NOT logged in {log}" if kept.lost else f"logged in {log}"
        _say(f"run {str(scope.run_id)[:8]} of seed {scope.seed}, {where}")
    if sys.flags.ignore_environment:
        _say("python -E and -I ignore PYTHONHASHSEED: hashes of strings differ in each run")
    _execute(main, code, command[0] if is_module else None, ended)


def _find_or_exit(name: str, is_module: bool) -> tuple[types.ModuleType, types.CodeType]:
    try:
        return find_program(name, is_module)
    except SyntaxError as error:
        sys.excepthook(type(error), error.with_traceback(None), None)
        raise SystemExit(1) from None


def _execute(
    main: types.ModuleType, code: types.CodeType, module: str | None, ended: list[BaseException]
) -> None:
    """Run the program's code, and append the exception that ends the code to `ended`."""
    from ..scope.advice import explain

    try:
        if module is not None:
            if main.__package__:
                importlib.import_module(main.__package__)
            sys.argv[0] = main.__file__ or module
        exec(code, vars(main))
    except SystemExit as error:
        ended.append(error)
        raise
    except BaseException as error:
        ended.append(error)
        explain(error)
        print_as_python_does(error, code)
        raise


def _close(scope: Scope, ended: list[BaseException]) -> None:
    from ..scope.open_scopes import ScopeConflictError

    error = ended[0] if ended else None
    # The program may have left blocks open, which end with the process.
    with contextlib.suppress(ScopeConflictError):
        scope.__exit__(type(error), error, None)


def _say(text: str) -> None:
    write_error(f"seedscope: {text}")
