"""The figure of the cost of determinism: a row for each network, a cell for each setting."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from seedscope.costs.configurations import CONFIGURATIONS, DEFAULT
from seedscope.costs.measurement import Measurement
from seedscope.support.optional_imports import import_extra

from . import determinism_cost
from .tables import where

# These colours of middle brightness are legible on a white page and on a dark page.
_INK, _FAINT, _ON_FILL = "#737b85", "#8c959f", "#fdfdfd"
#: The colour of a cell that repeats, by the ratio of a step's time to torch's defaults.
_COLOURS = ((1.03, "#3f8f4f", "up to 1.03x"), (1.25, "#b07a00", "up to 1.25x"))
_DEAR = ("#c2503c", "more")
_OUTLINE: dict[str, Any] = {"facecolor": "none", "edgecolor": _FAINT, "linestyle": (0, (3, 2))}
_UNSURE: dict[str, Any] = {"facecolor": "none", "edgecolor": "#3f8f4f"}
_FRAME: dict[str, Any] = {"facecolor": "none", "edgecolor": _INK, "linewidth": 1.6}
#: The settings' names in the narrow columns.
_COLUMNS = (
    "torch's\ndefaults",
    "cudnn.\nbenchmark",
    'deterministic\n="cudnn"',
    '="cudnn",\nbenchmark',
    'deterministic\n="warn"',
    "deterministic\n=True",
    "=True,\nno fill",
)
_WIDE, _HIGH = 0.92, 0.78  # the size of a cell, whose place is 1 by 1


def cost_figure(report: dict[str, Any], path: Path) -> None:
    """Draw the training steps in bf16 as an SVG into `path`."""
    figures = import_extra("matplotlib.figure", "The report")
    found = determinism_cost.training(determinism_cost.costs(report))
    # Without random names and a date, the file has the same bits each time.
    options = {"svg.hashsalt": path.stem, "text.color": _INK, "font.size": 9}
    with import_extra("matplotlib", "The report").rc_context(options):
        figure = figures.Figure(figsize=(8.6, 1.7 + 0.36 * len(found)), layout="constrained")
        axes = figure.subplots()
        for row, cost in enumerate(found.values()):
            measurements = {measured.configuration: measured for measured in cost}
            for column, configuration in enumerate(CONFIGURATIONS):
                best = cost.cheapest
                is_best = best is not None and best.configuration == configuration.name
                _cell(axes, measurements.get(configuration.name), row, column, is_best)
        _dress(axes, [*found])
        title = f"A training step on {where(report)}: its time, then times that"
        figure.suptitle(title, fontsize=10, color=_INK)
        _legend(figure)
        figure.savefig(path, transparent=True, metadata={"Date": None})


def _cell(axes: Any, measured: Measurement | None, row: int, column: int, is_best: bool) -> None:
    """Draw a cell: filled if the setting repeats, else an outline; framed if it is suggested.

    A setting autotuned in only one process is not filled: the next process tunes anew.
    """
    text = {"ha": "center", "va": "center"}
    if measured is None or (measured.error is None and not measured.ms):
        axes.text(column, row, "not measured", fontsize=7, color=_FAINT, **text)
    elif measured.error is not None:
        axes.text(column, row, "cannot run", color=_INK, **text)
    else:
        axes.add_patch(_box(column, row, **_look(measured)))
        if is_best:
            axes.add_patch(_box(column, row, 0.07, **_FRAME))
        colour = _ON_FILL if _is_filled(measured) else _INK
        axes.text(column, row, _label(measured), color=colour, **text)


def _is_filled(measured: Measurement) -> bool:
    return measured.repeats and not measured.is_of_one_tuning


def _look(measured: Measurement) -> dict[str, Any]:
    if not _is_filled(measured):
        return {**(_UNSURE if measured.repeats else _OUTLINE)}
    ratio = measured.ratio or 1.0
    colour = next((colour for limit, colour, _ in _COLOURS if ratio <= limit), _DEAR[0])
    return {"facecolor": colour, "edgecolor": "none"}


def _label(measured: Measurement) -> str:
    if measured.configuration == DEFAULT.name or measured.ratio is None:
        return f"{statistics.median(measured.ms):.3g} ms" + ", CPU" * measured.is_launch_bound
    return f"{measured.ratio:.2f}x" + ", CPU" * measured.is_launch_bound


def _box(column: float, row: float, more: float = 0.0, **look: Any) -> Any:
    """Return a box in the middle of its place, larger than a cell by `more`."""
    patches = import_extra("matplotlib.patches", "The report")
    width, height = _WIDE + more, _HIGH + 2 * more
    corner = (column - width / 2, row - height / 2)
    return patches.FancyBboxPatch(
        corner, width, height, boxstyle="round,pad=0,rounding_size=0.06", **look
    )


def _dress(axes: Any, networks: list[str]) -> None:
    axes.set_xlim(-0.55, len(CONFIGURATIONS) - 0.45)
    axes.set_ylim(len(networks) - 0.4, -0.6)
    axes.set_xticks(range(len(CONFIGURATIONS)), _COLUMNS)
    axes.set_yticks(range(len(networks)), networks)
    axes.xaxis.tick_top()
    axes.tick_params(colors=_INK, length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _legend(figure: Any) -> None:
    """Draw the meaning of a fill, an outline and a frame."""
    fills = [(colour, f"repeats, {text}") for _, colour, text in _COLOURS]
    fills.append((_DEAR[0], f"repeats, {_DEAR[1]}"))
    looks = [({"facecolor": colour, "edgecolor": "none"}, text) for colour, text in fills]
    looks.append(({**_OUTLINE}, "differs"))
    looks.append(({**_UNSURE}, "repeats, tuned in one process"))
    looks.append(({**_FRAME}, "the suggested setting"))
    marks = [_box(0, 0, label=text, **look) for look, text in looks]
    title = "CPU: it asks the GPU for work, and sets the time"
    place = {"loc": "outside lower center", "ncols": 3, "fontsize": 8, "title_fontsize": 8}
    figure.legend(handles=marks, title=title, frameon=False, **place)
