"""Measures on a GPU, the most important items first, for as long as the budget lasts.

The pieces, in this order: the machine, the tests that need a GPU, what determinism costs
networks, which operations repeat, replacements, the scope, attention, and the rest. DIR/gpu.json
holds the results at any moment, and --resume measures only the items that are missing there.
"""

from __future__ import annotations

import argparse
import signal
import time
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from . import budget, report
from .gpu_pieces import machine
from .gpu_pieces.pieces import pieces
from .gpu_pieces.summary import summary
from .harness import RESULTS, environment, progress
from .items import Found
from .pretended_gpu import pretend
from .record import Record, locked, read

FILE = "gpu.json"
_AFTERWARDS_S = 15.0  # for the report and its figure


def main(arguments: list[str]) -> int:
    begun = time.monotonic()
    parser = argparse.ArgumentParser("python -m benchmarks gpu", description=__doc__)
    what = "how long it may take in all, default 500"
    parser.add_argument("--budget", type=_seconds, default=500, metavar="SECONDS", help=what)
    what = f"new folder of {FILE}, summary.txt, report.md and gpu.svg"
    parser.add_argument("--out", type=Path, metavar="DIR", help=what)
    what = "measure what the run in DIR has not; without --out its results are added to"
    parser.add_argument("--resume", type=Path, metavar="DIR", help=what)
    what = "every piece at its smallest size, on the CPU, which pretends to be a GPU"
    parser.add_argument("--rehearse", action="store_true", help=what)
    options = parser.parse_args(arguments)
    out: Path | None = options.out or options.resume
    if out is None:
        parser.error("--out DIR says where the results go")
    if options.rehearse:
        pretend()
    elif not torch.cuda.is_available():
        parser.error("torch finds no CUDA device here; --rehearse runs everything on the CPU")
    # A time limit that sends SIGTERM then costs only the item that is being measured.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.rehearse and out.resolve() == RESULTS.resolve():
        parser.error(f"{out} has figures that are published: a rehearsal's go elsewhere")
    if out.exists() and not out.is_dir():
        parser.error(f"{out} is a file: --out names a folder")
    facts = _facts(options.rehearse)
    with ExitStack() as stack:
        try:
            _record(out, options.resume, facts)  # fails before a folder is made
            stack.enter_context(locked(out / FILE))
            record = _record(out, options.resume, facts)  # another run may just have ended
        except (ValueError, OSError) as error:
            parser.error(str(error))
        return _run(record, facts, options, begun)


def _run(record: Record, facts: Found, options: argparse.Namespace, begun: float) -> int:
    """Measure into the record; return 0, or 1 if the record holds no result."""
    reserve_s = min(_AFTERWARDS_S, options.budget / 4)
    left_s = options.budget - (time.monotonic() - begun) - reserve_s
    all_pieces = pieces(options.rehearse)
    this: Found = {name: facts[name] for name in ("date", "driver")}
    uuid = str(torch.cuda.get_device_properties().uuid)  # a resumed run may have another card
    this |= {"card": uuid, "code": record.code, "budget_s": options.budget}
    record.content["runs"].append(this)
    try:
        budget.run("gpu", all_pieces, record, left_s)
    finally:  # also if the run was stopped
        items = (item for piece in all_pieces for item in piece.items)
        record.content["left_out"] = [str(item) for item in items if not record.is_done(item)]
        this["took_s"] = round(time.monotonic() - begun, 1)
        _show(record)
    return 0 if record.found else 1


def _show(record: Record) -> None:
    """Write figures, report and summary, and print the summary; report errors without raising.

    The run may have taken all of the GPU's time: its results must not be lost to an error.
    """
    folder = record.file.parent
    try:
        record.write(indent=1)
    except OSError as error:
        progress(f"{record.file} could not be written: {error}")
    try:
        text = summary(record.content)
        print(text, flush=True)
        (folder / "summary.txt").write_text(text + "\n")
        for file in report.write(folder, folder, FILE):
            progress(f"written: {file}")
    except Exception as error:
        progress(f"not all could be written: {type(error).__name__}: {error}")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return value


def _record(out: Path, resume: Path | None, facts: Found) -> Record:
    """Return the record of this run in `out`, with the results of the run in `resume`.

    Raises:
        ValueError: `resume` has figures of another card or other versions, or `out` has
            the figures of another run. No file is touched.
    """
    file = out / FILE
    if resume is None:
        if file.exists():
            raise ValueError(f"{file} is there: --resume {out} goes on, or name another folder")
        return Record(file, facts | {"runs": []})
    if not (resume / FILE).exists():
        raise ValueError(f"{resume} has no {FILE}: --out {resume} starts a run there")
    content = read(resume / FILE)
    if not isinstance(content.get("runs"), list):
        raise ValueError(f"{resume / FILE} names no runs, so that it cannot be resumed")
    for name in _IDENTITY:
        if content.get(name) != facts[name]:
            raise ValueError(
                f"{resume / FILE} cannot be resumed: its {name} is {content.get(name)}, "
                f"here it is {facts[name]}"
            )
    try:
        summary(content)
    except Exception as error:  # this code writes another form
        raise ValueError(f"{resume / FILE} cannot be read as figures: {error!r}") from None
    if file.exists() and resume.resolve() != out.resolve():
        raise ValueError(f"{file} is there: name another folder than {out}")
    return Record(file, facts, content)


# The facts that figures must share to be compared.
_IDENTITY = ("device", "torch", "libraries")


def _facts(is_rehearsal: bool) -> Found:
    """Return the conditions of the figures."""
    facts = environment("cuda")
    versions = facts["versions"]
    return facts | {
        "driver": machine.nvidia_smi().get("driver_version", "unknown"),
        "torch": [versions["torch"], versions.get("cuda"), versions.get("cudnn")],
        "libraries": {name: _version(name) for name in ("torchvision", "transformers")},
        "quick": is_rehearsal,
    }


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"
