"""`seedscope sweep`."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from ..support.modes import MODES
from .arguments import add_options, add_shapes, command, positive, seed_range
from .messages import Unusable, say, show, show_json

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

    from ..runs.log import RunLog
    from ..sweeps.result import Sweep


def add(commands: Any) -> None:
    parser = command(
        commands,
        "sweep",
        _execute,
        says_warnings=True,
        help="run a function under many seeds",
        description=(
            "Call a function once for each seed, in a scope with this seed, and print\n"
            "statistics of the returned numbers. A function with a parameter gets the seed.\n"
            "With the same log, the same command resumes: only the missing seeds run."
        ),
        epilog="example: seedscope sweep train:accuracy --seeds 0:50 --best max --plot seeds.png",
    )
    parser.add_argument("function", metavar="MODULE:FUNCTION", help="or FILE.py:FUNCTION")
    parser.add_argument(
        "--seeds",
        type=seed_range,
        default=range(100),
        help="N (seeds 0 to N-1), or FIRST:END without END (default: 0:100)",
    )
    parser.add_argument(
        "--best", choices=("min", "max"), default="min", help="the best value (default: min)"
    )
    parser.add_argument(
        "--processes",
        type=positive,
        default=1,
        metavar="N",
        help="number of parallel processes (default: 1)",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="torch's CPU threads in each process; bits can depend on N (default: torch's own)",
    )
    add_options(parser, "deterministic", "log")
    parser.add_argument("--plot", metavar="PATH", help="draw the distribution and the running best")
    add_shapes(parser, "each outcome, as a JSON array")


def _execute(options: argparse.Namespace) -> int:
    from ..runs.log import RunLog
    from ..support.user_function import load_function
    from ..sweeps.result import SweepBroken, SweepInterrupted

    try:
        function = load_function(options.function)
    except LookupError as error:
        raise Unusable(str(error)) from error
    if options.plot:
        _check_plot(options.plot)  # before the sweep: a late error would waste its time
    log = RunLog(options.log)
    try:
        result = _sweep(function, log, options)
    except (TypeError, ValueError, OSError) as error:
        raise Unusable(str(error)) from error
    except (SweepInterrupted, SweepBroken) as ended:
        if log.lost:
            say(f"{ended}; {log.lost} of them are NOT in {options.log}")
        else:
            say(f"{ended}, kept in {options.log}: the same command resumes the sweep")
        show(str(ended.sweep))
        return 130 if isinstance(ended, SweepInterrupted) else 1
    _print(result, options)
    if options.plot and result.best is None:
        say("no plot was written: no seed gave a finite value, or all values are equal")
    elif options.plot:
        result.plot(options.plot)
        say(f"plot written to {options.plot}")
    return 0 if len(result.failed) < len(result) else 1


def _sweep(function: Callable[..., Any], log: RunLog, options: argparse.Namespace) -> Sweep:
    import torch

    from ..sweeps.sweep import sweep

    threads = options.threads or torch.get_num_threads()
    pool = _pool(options.processes, threads) if options.processes > 1 else None
    # The table has the same texts.
    warnings.filterwarnings("ignore", message="the best seed may be only luck")
    if not (options.json or options.csv):
        warnings.filterwarnings("ignore", message="the function itself seeds")
        warnings.filterwarnings("ignore", message="all .* are .* does not follow the seed")
    with pool or nullcontext():
        return sweep(
            function,
            options.seeds,
            executor=pool,
            log=log,
            best=options.best,
            deterministic=MODES[options.deterministic],
            threads=threads,
        )


def _print(result: Sweep, options: argparse.Namespace) -> None:
    from ..runs.values import encode

    if options.json:
        show_json([{**vars(o), "value": encode(o.value, "value")} for o in result])
    elif options.csv:
        _print_csv(result)
    else:
        show(str(result))


def _pool(processes: int, threads: int) -> ProcessPoolExecutor:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    cores = os.cpu_count() or 1
    if processes * threads > cores:
        say(
            f"{processes} processes of {threads} threads wait for each other on {cores} cores: "
            f"--threads {max(1, cores // processes)} may be much faster"
        )
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))


def _print_csv(result: Sweep) -> None:
    from .log_table import show_rows, shown

    names = ["seed", "value", "duration", "error", "reseeded"]
    rows = [
        [o.seed, shown(o.value), o.duration, o.error, " ".join(sorted(o.reseeded))] for o in result
    ]
    show_rows([names, *rows])


def _check_plot(path: str) -> None:
    from ..support.optional_imports import import_extra

    backend = import_extra("matplotlib.backend_bases", "--plot")
    known = backend.FigureCanvasBase.get_supported_filetypes()
    if os.path.splitext(path)[1][1:].lower() not in known:
        raise Unusable(
            f"--plot needs a file name that ends in .png or .svg, for example, got {path!r}"
        )
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise Unusable(f"the folder of --plot {path!r} does not exist: create the folder first")
