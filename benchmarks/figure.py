"""The figure of what determinism costs: one row for each network, a mark for each setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seedscope.costs import ARMS, Measured
from seedscope.extras import load_extra

from . import determinism_cost
from .tables import where

# Of middle brightness: they can be read on a white page and on a dark one.
_INK, _FAINT = "#737b85", "#8c959f66"
_COLOURS = ("#737b85", "#bf8700", "#3d8bd4", "#d4622a", "#4f9a4f", "#a475d6", "#d15c8f")
_SHAPES = "oDs^vPX"


def cost_figure(report: dict[str, Any], path: Path) -> None:
    """Draw it as SVG into `path`: the training steps in bf16."""
    figures = load_extra("matplotlib.figure", "The report")
    found = determinism_cost.training(determinism_cost.costs(report))
    # The same bits each time: no random names, no date.
    options = {"svg.hashsalt": path.stem, "text.color": _INK, "font.size": 10}
    with load_extra("matplotlib", "The report").rc_context(options):
        figure = figures.Figure(figsize=(8, 1.8 + 0.5 * len(found)), layout="constrained")
        axes = figure.subplots()
        for number, arm in enumerate(ARMS):
            for row, cost in enumerate(found.values()):
                for measured in cost:
                    if measured.arm == arm.name:
                        _mark(axes, measured, row, number)
        _dress(axes, [*found])
        figure.suptitle(f"A training step on {where(report)}", fontsize=10, color=_INK)
        _legend(figure)
        figure.savefig(path, transparent=True, metadata={"Date": None})


def _mark(axes: Any, measured: Measured, row: int, number: int) -> None:
    """A mark with its 95 % interval, a little below that of the setting before."""
    height = row + (number - (len(ARMS) - 1) / 2) * 0.1
    colour = _COLOURS[number]
    if measured.error is not None:
        text = {"color": colour, "fontsize": 7, "ha": "right", "va": "center"}
        edge = {"xy": (1, height), "xycoords": ("axes fraction", "data")}
        axes.annotate(f"{measured.arm} cannot run", **edge, **text)
    if measured.ratio is None:
        return
    low, high = measured.interval() or (measured.ratio, measured.ratio)
    axes.plot([low, high], [height, height], color=colour, linewidth=1)
    fill, shape = colour if measured.repeats else "none", _SHAPES[number]
    axes.plot(measured.ratio, height, shape, color=colour, markerfacecolor=fill, markersize=6)


def _dress(axes: Any, networks: list[str]) -> None:
    axes.axvline(1, color=_FAINT, zorder=0)
    for row in range(1, len(networks)):
        axes.axhline(row - 0.5, color=_FAINT, linewidth=0.6, zorder=0)
    axes.set_yticks(range(len(networks)), networks)
    axes.set_ylim(len(networks) - 0.5, -0.5)
    axes.xaxis.set_major_formatter("{x:g}x")
    axes.set_xlabel("time of a step, to torch's defaults")
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_INK)
    axes.tick_params(colors=_INK, left=False)
    axes.xaxis.label.set_color(_INK)


def _legend(figure: Any) -> None:
    """The settings, and what a filled mark says."""
    lines = load_extra("matplotlib.lines", "The report")
    marks = [
        lines.Line2D([], [], color=colour, marker=shape, linestyle="", label=arm.name)
        for arm, colour, shape in zip(ARMS, _COLOURS, _SHAPES, strict=True)
    ]
    for label, fill in (("every repeat gave the same bits", _INK), ("they differed", "none")):
        options = {"color": _INK, "markerfacecolor": fill, "linestyle": ""}
        marks.append(lines.Line2D([], [], marker="o", label=label, **options))
    figure.legend(handles=marks, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
