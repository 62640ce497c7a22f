"""The cost of entering and leaving `evaluating(model, seed=1029)`, beside the same by hand.

By hand is `model.eval()` and `model.train()`, which put every submodule into training mode;
a second arm adds `no_grad` and a scope, which `evaluating` also opens. The arms of each of
the three models are interleaved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from seedscope import evaluating, seeded

from .harness import environment, measure, paired, parse, save, show, suite_parser, summary
from .peers import SEED

MODULES = 10_000

OWN, KEPT = "with evaluating(model, seed=1029)", "the same, object made before"
BY_HAND, BY_HAND_SEEDED = "eval() + train()", "the same in no_grad and seeded(1029)"


def flat() -> nn.Module:
    """Return one module that holds all others."""
    return nn.Sequential(*(nn.Identity() for _ in range(MODULES - 1)))


def nested() -> nn.Module:
    """Return a binary tree of modules, 14 levels deep."""
    modules = [nn.Sequential() for _ in range(MODULES)]
    for number, module in enumerate(modules[1:], 1):
        modules[(number - 1) // 2].append(module)
    return modules[0]


class Bottleneck(nn.Module):
    def __init__(self, channels: int, first: bool) -> None:
        super().__init__()
        for number, kernel in enumerate((1, 3, 1), 1):
            self.add_module(f"conv{number}", nn.Conv2d(channels, channels, kernel))
            self.add_module(f"bn{number}", nn.BatchNorm2d(channels))
        self.relu = nn.ReLU()
        if first:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)
            )


def resnet50() -> nn.Module:
    """Return the 151 modules of torchvision's ResNet-50, with few channels; never called."""
    channels = 8
    layers = [
        nn.Sequential(*(Bottleneck(channels, number == 0) for number in range(blocks)))
        for blocks in (3, 4, 6, 3)
    ]
    stem = [nn.Conv2d(3, channels, 7), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(3)]
    return nn.Sequential(*stem, *layers, nn.AdaptiveAvgPool2d(1), nn.Linear(channels, 10))


MODELS = {"flat": flat, "nested": nested, "ResNet-50": resnet50}


def make_arms(model: nn.Module) -> dict[str, Callable[[], object]]:
    kept = evaluating(model, seed=SEED)

    def own() -> None:
        with evaluating(model, seed=SEED):
            pass

    def own_kept() -> None:
        with kept:
            pass

    def by_hand() -> None:
        model.eval()
        model.train()

    def by_hand_seeded() -> None:
        with seeded(SEED), torch.no_grad():
            model.eval()
        model.train()

    return {OWN: own, KEPT: own_kept, BY_HAND: by_hand, BY_HAND_SEEDED: by_hand_seeded}


def collect(quick: bool) -> dict[str, Any]:
    """Return all results of this suite, ready for JSON; times are in milliseconds."""
    report = environment("cpu") | {"quick": quick, "models": {}}
    for name, make in MODELS.items():
        model = make().train()
        arms = make_arms(model)
        rounds, block_s = (10, 0.005) if quick else (40, 0.02)
        samples = {
            arm: [us / 1e3 for us in values]
            for arm, values in measure(arms, rounds=rounds, block_s=block_s)[0].items()
        }
        report["models"][name] = {
            "modules": sum(1 for _ in model.modules()),
            "arms": {
                arm: summary(values)
                | {
                    "to_by_hand": paired(values, samples[BY_HAND]),
                    "above_by_hand": summary(
                        a - b for a, b in zip(values, samples[BY_HAND], strict=True)
                    ),
                }
                for arm, values in samples.items()
            },
        }
    return report


def show_report(report: dict[str, Any]) -> None:
    quick = ", quick" * report["quick"]
    print(f"evaluation_overhead on {report['device']}, {report['date']}{quick}")
    for name, text in report["versions"].items():
        print(f"  {name}: {text}")
    spread = ("median", "q1", "q3", "min")
    for name, model in report["models"].items():
        rows = [
            [arm, *(f"{of[key]:.3f}" for key in spread)]
            + [f"{of['above_by_hand'][key]:+.3f}" for key in ("median", "q1", "q3")]
            + [f"{of['to_by_hand']['median']:.2f}"]
            for arm, of in model["arms"].items()
        ]
        headers = ["milliseconds", *spread, "above by hand", "q1", "q3", "to by hand"]
        show(f"{name}, {model['modules']} modules, {model['arms'][OWN]['n']} rounds", headers, rows)
    show("aims", ["", "measured", "aim"], aims(report))


def aims(report: dict[str, Any]) -> list[list[str]]:
    """Return the aim beside the measurement of each model."""
    return [
        [
            f"more than by hand, {name}, {model['modules']} modules, ms",
            f"{model['arms'][OWN]['above_by_hand']['median']:+.2f}",
            "at most 5" if model["modules"] >= MODULES else "",
        ]
        for name, model in report["models"].items()
    ]


def main(arguments: list[str]) -> int:
    parser = suite_parser("evaluation_overhead", __doc__)
    options = parse(parser, arguments)
    torch.set_num_threads(1)
    report = collect(options.quick)
    show_report(report)
    print(f"\nwritten: {save('evaluation_overhead_cpu', report, options.out)}")
    return 0
