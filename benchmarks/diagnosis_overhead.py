"""What a trace of `diagnose` costs a training step, beside two other ways to compare operations.

The arms take turns in one run: the step alone, in the tracer of `diagnose`, in torch's DebugMode
with its hashes (the L1 norm of each output, and its XOR), and in a mode that runs each operation
twice and compares. A step is of a small CNN, of an encoder layer, or has many small operations.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from seedscope import diagnose
from seedscope.diagnosis.call import leaves
from seedscope.diagnosis.trace import Tables
from seedscope.diagnosis.tracer import Tracer

from .harness import (
    environment,
    measure,
    paired,
    parse,
    save,
    show,
    spread,
    suite_parser,
    summary,
)

ALONE, TRACED, TWICE = "the step alone", "traced by diagnose", "each operation run twice"
NORM, XOR = "DebugMode, norms", "DebugMode, XOR sums"
AIM = 3.0  # times the step alone, for the CNN

Step = Callable[[], object]


class Twice(TorchDispatchMode):
    """Runs each operation twice and compares the results, as tests of determinism do."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        state = torch.get_rng_state()
        copies = [one.clone() if isinstance(one, Tensor) else one for one in args]
        first = func(*copies, **kwargs)
        torch.set_rng_state(state)
        result = func(*args, **kwargs)
        for one, other in zip(leaves(first, Tensor), leaves(result, Tensor), strict=True):
            torch.equal(one, other)
        return result


def cnn() -> Step:
    """Return a step of two convolutions with batch norms, on 64 images of 32 by 32."""
    model = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(64, 10)),
    )
    return _step(model, torch.randn(64, 3, 32, 32))


def encoder() -> Step:
    """Return a step of an encoder layer of width 256, on 16 sequences of 128."""
    layer = nn.TransformerEncoderLayer(256, 8, 1024, batch_first=True)
    return _step(layer, torch.randn(16, 128, 256))


def small() -> Step:
    """Return a step of 20 layers of width 32 on 16 rows: tensors below 64 KiB, all overhead."""
    return _step(nn.Sequential(*[nn.Linear(32, 32) for _ in range(20)]), torch.randn(16, 32))


STEPS = {"CNN": cnn, "encoder layer": encoder, "small layers": small}


def _step(model: nn.Module, inputs: Tensor) -> Step:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = model(inputs).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss

    return step


def traced(step: Step) -> Tracer:
    tracer = Tracer(Tables())
    with tracer:
        step()
    tracer.finish()
    return tracer


def make_arms(step: Step) -> dict[str, Step]:
    def twice() -> None:
        with Twice():  # type: ignore[no-untyped-call]
            step()

    arms: dict[str, Step] = {ALONE: step, TRACED: lambda: traced(step), TWICE: twice}
    try:
        from torch.utils._debug_mode import DebugMode
    except ImportError:  # before torch 2.9
        return arms

    def hashed(kind: str) -> Step:
        def run() -> None:
            with DebugMode(), DebugMode.log_tensor_hashes(kind):
                step()

        return run

    return arms | {NORM: hashed("norm"), XOR: hashed("hash_tensor")}


def collect(quick: bool) -> dict[str, Any]:
    """Return all results of this suite, ready for JSON; times are in milliseconds."""
    report = environment("cpu") | {"quick": quick, "steps": {}}
    rounds, block_s = (5, 0.01) if quick else (40, 0.1)
    for name, make in STEPS.items():
        torch.manual_seed(1029)
        step = make()
        samples = measure(make_arms(step), rounds=rounds, block_s=block_s)[0]
        trace = traced(step).trace
        began = time.perf_counter()
        diagnose(step, seed=1029, restore=())
        report["steps"][name] = {
            "operations": len(trace),
            "bytes_an_operation": trace.nbytes / len(trace),
            "diagnose_s": time.perf_counter() - began,
            "arms": {
                arm: summary(us / 1e3 for us in values)
                | {"to_alone": paired(values, samples[ALONE])}
                for arm, values in samples.items()
            },
        }
    return report


def show_report(report: dict[str, Any]) -> None:
    print(
        f"diagnosis_overhead on {report['device']}, {report['date']}{', quick' * report['quick']}"
    )
    for name, text in report["versions"].items():
        print(f"  {name}: {text}")
    for name, step in report["steps"].items():
        rows = [
            [
                arm,
                f"{of['median']:.2f}",
                f"{of['q1']:.2f} to {of['q3']:.2f}",
                spread(of["to_alone"], 2),
            ]
            for arm, of in step["arms"].items()
        ]
        size = f"{step['operations']} operations, {step['bytes_an_operation']:.0f} bytes for each"
        show(f"{name}, {size}", ["milliseconds", "median", "quartiles", "to the step alone"], rows)
    show("aims", ["", "measured", "aim"], aims(report))


def aims(report: dict[str, Any]) -> list[list[str]]:
    steps = report["steps"]
    ratio = steps["CNN"]["arms"][TRACED]["to_alone"]["median"]
    memory = max(step["bytes_an_operation"] for step in steps.values())
    return [
        ["CNN, traced, to the step alone", f"{ratio:.2f}", f"at most {AIM:.0f}"],
        ["bytes of a trace for an operation", f"{memory:.0f}", "below 200"],
    ]


def main(arguments: list[str]) -> int:
    options = parse(suite_parser("diagnosis_overhead", __doc__), arguments)
    report = collect(options.quick)
    show_report(report)
    print(f"\nwritten: {save('diagnosis_overhead_cpu', report, options.out)}")
    return 0
