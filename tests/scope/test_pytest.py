"""pytest passes a decorated function what it would pass without the decorator."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from helpers import ROOT
from seedscope import seeded

START = """
import pytest
import random
from seedscope import seeded

seed = seeded(1029)
with seed:
    FIRST = random.random()
got = []

def tell(name, *arguments):
    got.append((name, *arguments, random.random() == FIRST))
"""


def run_pytest(folder: Path, *parts: str) -> None:
    program = "".join(map(textwrap.dedent, (START, *parts)))
    folder.joinpath("test_it.py").write_text(program)
    options = ["-q", f"--rootdir={folder}", "-p", "no:randomly", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_it.py"],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=120,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_functions_around_a_module_and_its_functions(tmp_path):
    run_pytest(
        tmp_path,
        """
        @seed
        def setup_module(module):
            tell("setup_module", module.__name__)

        @seed
        def teardown_module():
            tell("teardown_module")
            assert got == [
                ("setup_module", "test_it", True),
                ("setup_function", "test_it", True),
                ("teardown_function", True),
                ("teardown_module", True),
            ]

        @seed
        def setup_function(function):
            tell("setup_function", function.__name__)

        @seed
        def teardown_function():
            tell("teardown_function")

        def test_it():
            assert len(got) == 2
        """,
    )


METHODS = """
class TestMethods:
    {0}
    {1}
    def setup_class(cls):
        cls.scale = 3
        tell("setup_class", cls.__name__)

    {0}
    {1}
    def teardown_class(cls):
        tell("teardown_class", cls.__name__)
        assert got == [
            ("setup_class", "TestMethods", True),
            ("setup_method", {2!r}, 3, True),
            ("teardown_method", True),
            ("teardown_class", "TestMethods", True),
        ]

    def test_it(self):
        assert self.ready
        assert len(got) == 2
"""

WITH_ARGUMENT = """
    @seed
    def setup_method(self, method):
        self.ready = True
        tell("setup_method", method.__name__, self.scale)

    @seed
    def teardown_method(self):
        tell("teardown_method")
"""

WITHOUT_ARGUMENT = """
    @seed
    def setup_method(self):
        self.ready = True
        tell("setup_method", None, self.scale)

    @seed
    def teardown_method(self, method):
        assert method.__name__ == "test_it"
        tell("teardown_method")
"""


@pytest.mark.parametrize("order", [("@seed", "@classmethod"), ("@classmethod", "@seed")])
@pytest.mark.parametrize(
    ("methods", "name"), [(WITH_ARGUMENT, "test_it"), (WITHOUT_ARGUMENT, None)]
)
def test_methods_around_a_class_and_its_methods(tmp_path, order, methods, name):
    run_pytest(tmp_path, METHODS.format(*order, name) + methods)


def test_fixtures_of_every_kind_get_their_arguments(tmp_path):
    run_pytest(
        tmp_path,
        """
        @pytest.fixture(autouse=True)
        @seed
        def always():
            tell("always")

        @pytest.fixture
        @seed
        def name(request):
            tell("name")
            return request.node.name

        @pytest.fixture(params=[1, 2])
        @seed
        def steps(request, name):
            tell("before")
            yield name, request.param
            assert random.random() != FIRST  # the second draw

        def test_it(steps):
            assert steps in [(f"test_it[{n}]", n) for n in (1, 2)]
            assert got[-3:] == [("always", True), ("name", True), ("before", True)]

        class TestMethods:
            scale = 3

            @pytest.fixture(autouse=True)
            @seed
            def mine(self, name):
                self.name = name
                tell("mine", self.scale)

            @pytest.fixture
            @seed
            def steps(self, request):
                tell("steps", request.node.name)
                yield self.name

            def test_methods(self, steps):
                assert steps == "test_methods"
                assert got[-2:] == [("mine", 3, True), ("steps", "test_methods", True)]
        """,
    )


def test_seeded_above_a_fixture_is_refused():
    for decorator in (seeded, seeded(1029)):
        with pytest.raises(TypeError, match="put @seeded below @fixture"):
            decorator(pytest.fixture(lambda: 1))
