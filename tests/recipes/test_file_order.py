"""The order of files depends on the file system, unless the program sorts them."""

from __future__ import annotations

import glob
import os
import random
from pathlib import Path

import pytest

from seedscope import seeded

NAMES = [f"{i}.txt" for i in range(12)]
WAYS = {
    "listdir": os.listdir,
    "scandir": lambda folder: [entry.name for entry in os.scandir(folder)],
    "glob": lambda folder: glob.glob("*.txt", root_dir=folder),
    "iterdir": lambda folder: [path.name for path in Path(folder).iterdir()],
    "rglob": lambda folder: [path.name for path in Path(folder).rglob("*.txt")],
}


@pytest.mark.parametrize("way", WAYS)
def test_sorted_names_have_one_order(tmp_path, way):
    for folder, names in (("a", NAMES), ("b", NAMES[::-1])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    first, second = (WAYS[way](tmp_path / folder) for folder in "ab")
    assert sorted(first) == sorted(second) == sorted(NAMES)


def test_a_shuffle_under_one_seed_follows_the_order_of_the_files():
    def shuffled(names):
        with seeded(1029):
            random.shuffle(names)
        return names

    assert shuffled([*NAMES]) != shuffled(NAMES[::-1])
    backwards = NAMES[::-1]
    assert shuffled(sorted(NAMES)) == shuffled(sorted(backwards))
