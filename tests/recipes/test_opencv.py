"""OpenCV's generator as a source: it repeats inside, and moves outside in the same way."""

from __future__ import annotations

import inspect

import cv2
import numpy as np
import pytest

from helpers import run_in_thread
from seedscope import RandomState, Stream, register_source, seeded, snapshot
from small_training import RECIPES

POINTS = np.linspace(0, 1, 100, dtype=np.float32).reshape(50, 2)


class OpenCV:
    name = "opencv"
    seed_set = first = None

    def draw(self):
        return cv2.randu(np.empty((1, 1), np.int32), 0, 2**31 - 1).item()

    def capture(self):
        drawn = self.draw()
        self.restore(self.seed_set if drawn == self.first else drawn)
        return self.seed_set

    def seed(self, seed):
        self.restore(seed % 2**31)

    def restore(self, state):
        cv2.setRNGSeed(state)
        self.seed_set, self.first = state, self.draw()
        cv2.setRNGSeed(state)


@pytest.fixture(autouse=True)
def opencv():
    unregister = register_source(OpenCV())
    yield
    unregister()


def draws():
    return cv2.randu(np.empty((1, 4), np.int32), 0, 2**31 - 1).tolist()


def centers(seed):
    with seeded(seed):
        flags = cv2.KMEANS_RANDOM_CENTERS
        return cv2.kmeans(POINTS, 5, None, (3, 3, 0.1), 1, flags)[2].tolist()


def test_opencv_repeats_inside():
    assert centers(1029) == centers(1029) != centers(1030)


def test_a_program_that_seeded_opencv_repeats_after_a_block():
    def program(block):
        cv2.setRNGSeed(3)
        draws()
        if block:
            centers(1029)
        return draws()

    assert program(block=True) == program(block=True)
    assert program(block=False) == program(block=False)
    # The promise that is not kept: the block has changed what follows.
    assert program(block=True) != program(block=False)


def test_a_block_that_follows_no_draw_changes_nothing():
    with seeded(5):
        centers(1029)
        first = draws()
    with seeded(5):
        assert draws() == first


def test_snapshots_tell_whether_opencv_was_used():
    before = snapshot()
    assert before.changed(snapshot()) == ()
    expected = draws()
    assert before.changed(snapshot()) == ("opencv",)
    before.restore()
    assert draws() == expected
    with seeded(1029) as scope:
        assert scope.used() == ()
        draws()
        assert scope.used() == ("opencv",)


def test_a_checkpoint_resumes_exactly():
    state = RandomState()
    saved = state.state_dict()
    expected = draws(), draws()
    state.load_state_dict(saved)
    assert (draws(), draws()) == expected


def test_a_stream_repeats_if_it_is_entered_in_the_same_way():
    def entered_twice():
        stream = Stream(1029)
        with stream:
            first = draws()
        with stream:
            return first, draws()

    assert entered_twice() == entered_twice()
    with Stream(1029):
        assert (draws(), draws()) != entered_twice()


def test_another_thread_has_a_generator_of_its_own():
    with seeded(1029):
        inside = draws()
        assert run_in_thread(draws) == run_in_thread(draws) != inside


def test_seeds_of_more_than_31_bits_are_refused_by_opencv():
    cv2.setRNGSeed(2**31 - 1)
    with pytest.raises(ValueError, match="C int"):
        cv2.setRNGSeed(2**31)

    def drawn(seed):
        with seeded(seed):
            return draws()

    assert drawn(7) == drawn(7 + 2**31) != drawn(8)


def test_the_page_shows_the_source():
    assert inspect.getsource(OpenCV) in RECIPES.read_text()
