"""The pieces to measure on a GPU, the most important first, with their seconds."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

from ..items import Item, Piece, Scale
from ..models import EVALUATION, LARGE, TF32, TRAINING, Case
from ..networks import FIRST_PAIR, SECOND_PAIR, attention_item, network_item, sizes_items
from ..op_atlas import by_importance, operation_item
from ..operations.catalogue import ATTENTION, OPERATIONS
from ..pretended_gpu import pretended
from . import cuda_tests, machine, replaced, scope

#: The group of the operations of attention, which have their own piece.
ATTENTION_GROUP = "attention"
_GPT2 = next(case for case in TRAINING if case.model == "GPT-2 small")
# Only two networks, because autotuning takes seconds for each size.
_SIZED = [case for case in TRAINING if case.model in ("ResNet-50", "U-Net")]


def pieces(is_rehearsal: bool) -> list[Piece]:
    """Return the pieces; a rehearsal has the same, small and on a pretended GPU."""
    scale = Scale("cuda", small=is_rehearsal, quick=is_rehearsal)
    others = [x for x in OPERATIONS if x not in ATTENTION]
    important, less_important = by_importance(others)
    found = [
        Piece("machine", 20, machine.items(scale)),
        Piece("networks", 200, _networks(TRAINING, FIRST_PAIR, scale)),
        Piece("operations", 75, [operation_item(x, scale) for x in important]),
        Piece("replacements", 40, replaced.items(scale)),
        Piece("scope", 30, scope.items(scale)),
        Piece("attention", 60, _attention(scale)),
        Piece(
            "what is left",
            math.inf,
            [
                *_networks(EVALUATION, FIRST_PAIR, scale),
                *_networks((TF32,), FIRST_PAIR, scale),
                *sizes_items(_SIZED, scale),
                *(operation_item(x, scale) for x in less_important),
                *_networks(TRAINING, SECOND_PAIR, scale),
                *_networks((LARGE,), FIRST_PAIR[:1], scale),
            ],
        ),
    ]
    if is_rehearsal:
        found = [replace(piece, items=[*map(_pretended, piece.items)]) for piece in found]
    # The tests get no pretended GPU: without a real GPU they skip.
    found.insert(1, Piece("tests", 72, cuda_tests.items()))
    found[-1].items[:0] = cuda_tests.long_items()
    return found


def _networks(cases: tuple[Case, ...], processes: list[str], scale: Scale) -> list[Item]:
    """Return the items of each network in all processes before those of the next network."""
    return [network_item(case, process, scale) for case in cases for process in processes]


def _attention(scale: Scale) -> list[Item]:
    # Times of an H200. The math backend reads and writes the whole matrix of attention.
    seconds = {"math 1024": 1.5, "math 4096": 4.0, "math 8192": 8.0}
    operations = [
        operation_item(x, scale, ATTENTION_GROUP, seconds.get(" ".join(x.name.split()[1:3]), 0.5))
        for x in ATTENTION
    ]
    return [*operations, attention_item(_GPT2, scale)]


def _pretended(item: Item) -> Item:
    return replace(item, measure=partial(pretended, item.measure))
