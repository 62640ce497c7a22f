"""The `seedscope` command. Each command imports what it needs.

torch takes its time, and so does the rest: process pools take as long as Python's own start.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any

from . import __version__

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

    from .runs.log import RunLog
    from .runs.run import Run
    from .sweeps.result import Sweep

LOG = "runs.jsonl"
MODES: dict[str, Any] = {"true": True, "warn": "warn", "cudnn": "cudnn", "false": False}


class _Unusable(Exception):
    """What was asked for cannot be done; the message is one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default the process's own, and return the exit code.

    0: done. 1: the answer is no (the demo: a promise was broken; replay: not the same;
    sweep: every seed failed). 2: it could not run. 130: stopped with Ctrl-C.
    `seedscope run` ends as the script does.
    """
    arguments = sys.argv[1:] if arguments is None else [*arguments]
    parser = argparse.ArgumentParser(
        prog="seedscope",
        description="Scoped, complete, explained reproducibility for PyTorch.",
        epilog="example: seedscope demo --seed 7",
    )
    parser.add_argument("--version", action="version", version=f"seedscope {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_run, _add_log, _add_replay, _add_sweep, _add_cost, _add_info, _add_demo):
        add(commands)
    options = parser.parse_args(arguments, argparse.Namespace(arguments=arguments))
    run: Callable[[argparse.Namespace], int] = options.run
    if run is _run:
        return run(options)  # ends as the program does: nothing of it is caught here
    try:
        # A broken line of a log, or a sweep's luck, is one line here and no Python warning.
        with warnings.catch_warnings() if options.quiet_warnings else nullcontext():
            if options.quiet_warnings:
                warnings.showwarning = _say_once()
            code = run(options)
        sys.stdout.flush()  # here, where a pipe that was closed is no error
    except (_Unusable, ImportError) as error:
        if isinstance(error, ImportError) and "seedscope[" not in str(error):
            raise
        _say(str(error))
        return 2
    except BrokenPipeError:  # `seedscope log | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _say_once() -> Callable[..., None]:
    """What shows a warning as one line, and not again."""
    said: set[str] = set()

    def show(message: Any, *_: Any) -> None:
        if str(message) not in said:
            said.add(str(message))
            _say(str(message))

    return show


def _say(text: str) -> None:
    print(f"seedscope: {text}", file=sys.stderr, flush=True)


def _print_json(value: Any) -> None:
    import json

    json.dump(value, sys.stdout, indent=1)
    print()


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], **texts: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, formatter_class=argparse.RawDescriptionHelpFormatter, **texts
    )
    parser.set_defaults(run=run, quiet_warnings=name in ("log", "replay", "sweep"))
    return parser


def _add_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add the options, of those named, that several commands have."""
    if "log" in names:
        parser.add_argument("--log", metavar="PATH", default=LOG, help="default: %(default)s")
    if "deterministic" in names:
        parser.add_argument(
            "--deterministic",
            choices=MODES,
            default="true",
            help="what seeded(deterministic=...) takes, default: %(default)s",
        )


# ----------------------------------------------------------------------------------- run


def _add_run(commands: Any) -> None:
    parser = _command(
        commands,
        "run",
        _run,
        usage="seedscope run [options] (SCRIPT | -m MODULE) [ARGUMENT ...]",
        help="run a script in a scope, and log its seed",
        description=(
            "Run a script or module as `python` does, with a scope around it. Without --seed the\n"
            "seed is a fresh one, printed and logged. The hash seed is set before the interpreter\n"
            "starts, as the cuBLAS workspace is for torch before 2.11. note(loss=...) in the\n"
            "script adds to the log."
        ),
        epilog="example: seedscope run --seed 7 train.py --lr 0.1",
    )
    parser.add_argument("--seed", type=_seed, help="default: a fresh one")
    _add_options(parser, "deterministic", "log")
    parser.add_argument(
        "--no-fill",
        action="store_true",
        help="do not fill uninitialised memory: quicker, and safe in code that reads none",
    )
    # What follows the module's name is in the remainder, as for a script.
    parser.add_argument("-m", dest="module", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def _run(options: argparse.Namespace) -> int:
    from .launch.interpreter import LaunchError
    from .launch.launch import launch

    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        _say("run needs a script, or -m and a module: seedscope run train.py")
        return 2
    try:
        launch(
            command,
            is_module=options.module,
            seed=options.seed,
            deterministic=MODES[options.deterministic],
            fill_uninitialized_memory=False if options.no_fill else None,
            log=options.log,
            restart=["-m", "seedscope", *options.arguments],
        )
    except LaunchError as error:
        _say(str(error))
        return 2
    return 0


# ----------------------------------------------------------------------------------- log


def _add_log(commands: Any) -> None:
    parser = _command(
        commands,
        "log",
        _log,
        help="show the logged runs",
        description=(
            "Show the runs of a log that ended, newest first. Of several ranks the first is\n"
            "shown, unless --where names a rank."
        ),
        epilog="examples:\n  seedscope log --best loss --where epoch>=3\n"
        "  seedscope log --best accuracy:max --json",
    )
    _add_options(parser, "log")
    parser.add_argument(
        "--best",
        metavar="NOTE[:max]",
        help="the runs that noted it, the smallest (or largest) value first",
    )
    parser.add_argument(
        "--where",
        metavar="NAME<VALUE",
        action="append",
        type=_condition,
        default=[],
        help="only runs of which this holds: < <= = != >= > and a field such as outcome, or a "
        "note (notes.NAME where both have the name)",
    )
    parser.add_argument("--replays", action="store_true", help="replays of other runs too")
    parser.add_argument("--unfinished", action="store_true", help="runs that began and did not end")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="all that is known, as a JSON array")
    shape.add_argument("--csv", action="store_true", help="as comma-separated values")


def _condition(text: str) -> tuple[str, str, str]:
    match = re.fullmatch(r"\s*([^<>=!\s]+)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be like loss<0.2 or outcome=ok, got {text!r}")
    name, sign, value = match.groups()
    return name, sign, value


def _log(options: argparse.Namespace) -> int:
    from . import logview

    log = _open_log(options.log)
    try:
        runs = logview.select(_runs(log, options.unfinished), options.where, options.replays)
        if options.best and runs:
            runs = logview.best_first(runs, options.best)
    except logview.ViewError as error:
        raise _Unusable(str(error)) from error
    if options.json:
        _print_json([logview.plain(run) for run in runs])
    elif options.csv:
        logview.write_csv(runs)
    else:
        logview.show(runs, options.log, options.best)
        if not options.unfinished and (count := len(log.unfinished())):
            _say(f"{count} more did not end, or have not yet: --unfinished shows them")
    return 0


def _open_log(path: str) -> RunLog:
    if not os.path.exists(path):
        raise _Unusable(f"there is no log at {path}: --log PATH names another")
    from .runs.log import RunLog

    return RunLog(path)


def _runs(log: RunLog, unfinished: bool = False) -> list[Run]:
    try:
        runs = log.unfinished() if unfinished else [*log]
    except (OSError, ValueError) as error:
        raise _Unusable(f"cannot read the log: {error}") from error
    return sorted(runs, key=lambda run: run.began, reverse=True)


# -------------------------------------------------------------------------------- replay


def _add_replay(commands: Any) -> None:
    parser = _command(
        commands,
        "replay",
        _replay,
        help="run a logged run again, and compare",
        description=(
            "Run the same command with the same seed, in the same folder. Says what differs from\n"
            "then, and whether the noted values come out equal, bit for bit; if not, the exit\n"
            "code is 1."
        ),
        epilog="example: seedscope replay 3f2a",
    )
    parser.add_argument("id", help="of the run, or as much of it as is needed")
    _add_options(parser, "log")


def _replay(options: argparse.Namespace) -> int:
    from .replay import ReplayError, replay

    log = _open_log(options.log)
    try:
        run = log.find(options.id)
    except (LookupError, OSError, ValueError) as error:
        raise _Unusable(f"{error.args[-1]}; seedscope log lists the runs") from error
    try:
        return 0 if replay(log, run, _say) else 1
    except ReplayError as error:
        raise _Unusable(f"{run.id} cannot be replayed: {error}") from error
    except KeyboardInterrupt:
        return 130


# --------------------------------------------------------------------------------- sweep


def _add_sweep(commands: Any) -> None:
    parser = _command(
        commands,
        "sweep",
        _sweep,
        help="run a function under many seeds",
        description=(
            "Call a function, which returns a number, once for each seed, in a scope with it, and\n"
            "print what came out. A function with a parameter gets the seed. Started again with\n"
            "the same log, it runs only the seeds that are missing."
        ),
        epilog="example: seedscope sweep train:accuracy --seeds 0:100 --best max --plot seeds.png",
    )
    parser.add_argument("function", metavar="MODULE:FUNCTION", help="or FILE.py:FUNCTION")
    parser.add_argument(
        "--seeds", type=_seeds, default=range(100), help="N or FIRST:END, default: 0:100"
    )
    parser.add_argument("--best", choices=("min", "max"), default="min", help="default: min")
    parser.add_argument(
        "--processes", type=_positive, default=1, metavar="N", help="side by side, default: 1"
    )
    parser.add_argument(
        "--threads",
        type=_positive,
        metavar="N",
        help="of torch in each process; bits can depend on it. Default: as many as torch takes",
    )
    _add_options(parser, "deterministic", "log")
    parser.add_argument("--plot", metavar="PATH", help="draw the distribution and the running best")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="each seed's outcome, as a JSON array")
    shape.add_argument("--csv", action="store_true", help="as comma-separated values")


def _sweep(options: argparse.Namespace) -> int:
    import torch

    from .runs.values import encode
    from .support.user_function import load_function
    from .sweeps.result import SweepInterrupted
    from .sweeps.sweep import sweep

    try:
        function = load_function(options.function)
    except LookupError as error:
        raise _Unusable(str(error)) from error
    if options.plot:
        _check_plot(options.plot)  # before the work, not after it
    threads = options.threads or torch.get_num_threads()
    pool = _pool(options.processes, threads) if options.processes > 1 else None
    # The table says it too.
    warnings.filterwarnings("ignore", message="the best seed may be only luck")
    try:
        with pool or nullcontext():
            result = sweep(
                function,
                options.seeds,
                executor=pool,
                log=options.log,
                best=options.best,
                deterministic=MODES[options.deterministic],
                threads=threads,
            )
    except (TypeError, ValueError) as error:
        raise _Unusable(str(error)) from error
    except SweepInterrupted as stopped:
        _say(f"{stopped}, kept in {options.log}: the same command goes on from there")
        print(stopped.sweep)
        return 130
    if options.json:
        _print_json([{**vars(o), "value": encode(o.value, "value")} for o in result])
    elif options.csv:
        _print_csv(result)
    else:
        print(result)
    if options.plot and result.best is not None:
        result.plot(options.plot)
        _say(f"drawn: {options.plot}")
    return 0 if len(result.failed) < len(result) else 1


def _pool(processes: int, threads: int) -> ProcessPoolExecutor:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    cores = os.cpu_count() or 1
    if processes * threads > cores:
        _say(
            f"{processes} processes of {threads} threads wait for each other on {cores} cores: "
            f"--threads {max(1, cores // processes)} may be much quicker"
        )
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))


def _print_csv(result: Sweep) -> None:
    import csv

    from .logview import shown

    writer = csv.writer(sys.stdout)
    writer.writerow(["seed", "value", "duration", "error"])
    writer.writerows([o.seed, shown(o.value), o.duration, o.error] for o in result)


def _check_plot(path: str) -> None:
    from .support.optional_imports import import_extra

    backend = import_extra("matplotlib.backend_bases", "--plot")
    known = backend.FigureCanvasBase.get_supported_filetypes()
    if os.path.splitext(path)[1][1:].lower() not in known:
        raise _Unusable(f"--plot takes a file of a kind such as .png or .svg, got {path!r}")
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise _Unusable(f"--plot: there is no folder for {path!r}")


def _seeds(text: str) -> range:
    first, colon, end = text.partition(":")
    try:
        seeds = range(_seed(first), int(end)) if colon else range(int(first))
    except (ValueError, argparse.ArgumentTypeError):
        seeds = range(0)
    if not seeds:
        raise argparse.ArgumentTypeError(f"must be N or FIRST:END, such as 0:100, got {text!r}")
    return seeds


# ---------------------------------------------------------------------------------- cost


def _add_cost(commands: Any) -> None:
    parser = _command(
        commands,
        "cost",
        _cost,
        help="what each determinism setting costs a step of yours, and which repeat",
        description=(
            "Call FUNCTION, which builds a model and returns a function that takes one training\n"
            "step and returns the model, under each setting, in fresh processes: time the steps,\n"
            "and compare what they give from one seed, bit for bit. Prints the cheapest setting\n"
            "that repeats; if none does, the exit code is 1."
        ),
        epilog="example: seedscope cost train:make_step",
    )
    parser.add_argument("function", metavar="MODULE:FUNCTION", help="or FILE.py:FUNCTION")
    parser.add_argument("--quick", action="store_true", help="a look, with wider intervals")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")


def _cost(options: argparse.Namespace) -> int:
    from .costs.cost import cost
    from .support.user_function import load_function

    try:
        with redirect_stdout(sys.stderr):  # what the file prints is no JSON
            function = load_function(options.function)
    except LookupError as error:
        raise _Unusable(str(error)) from error
    try:
        found = cost(function, quick=options.quick, say=_say)
    except TypeError as error:
        raise _Unusable(str(error)) from error
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # the step's own, with the traceback of the process it was in
        print(error.__cause__ or "", file=sys.stderr)
        raise _Unusable(f"{options.function} failed: {type(error).__name__}: {error}") from error
    if options.json:
        _print_json(found.as_dict())
    else:
        print(found)
    return 0 if found.cheapest is not None else 1


# ---------------------------------------------------------------------------------- info


def _add_info(commands: Any) -> None:
    parser = _command(
        commands,
        "info",
        _info,
        help="what bears on reproducibility here, for a bug report",
        description="Show versions, devices, settings and environment variables.",
        epilog="example: seedscope info --json",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def _info(options: argparse.Namespace) -> int:
    from .info import collect_info

    info = collect_info()
    if options.json:
        _print_json(info)
        return 0
    for section, values in info.items():
        print(section)
        width = max(map(len, values))
        for name, value in values.items():
            if isinstance(value, dict):
                value = [f"{key} {item}" for key, item in value.items()]
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            print(f"  {name:<{width}}  {'none' if value is None else shown}")
    return 0


# ---------------------------------------------------------------------------------- demo


def _add_demo(commands: Any) -> None:
    parser = _command(
        commands,
        "demo",
        _demo,
        help="train a small network four times, bare and seeded, and compare",
        description=(
            "Train a small network on scikit-learn's handwritten digits, twice as it is and twice\n"
            "inside seeded(SEED), and show what repeats and what is left changed. Takes less than\n"
            "a minute and downloads nothing. The exit code is 1 if the seeded runs differ or left\n"
            "something changed outside."
        ),
        epilog="example: seedscope demo --seed 7",
    )
    parser.add_argument("--seed", type=_seed, default=1029, help="default: %(default)s")
    parser.add_argument(
        "--epochs", type=_positive, default=10, help="of each run, default: %(default)s"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="default: auto, that is cuda where there is one",
    )


def _demo(options: argparse.Namespace) -> int:
    from .support.optional_imports import import_extra

    for module in ("rich", "sklearn"):
        import_extra(module, "The demo", "demo")
    from . import demo

    try:
        device = demo.choose_device(options.device)
    except ValueError as error:
        raise _Unusable(str(error)) from error
    try:
        return demo.main(options.seed, options.epochs, device)
    except KeyboardInterrupt:
        return 130  # what a shell reports after Ctrl-C


def _seed(text: str) -> int:
    from .seeds import check_seed

    try:
        return check_seed(int(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}")
    return number
