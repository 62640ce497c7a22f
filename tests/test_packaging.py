"""What a user installs: the files of the wheel and the sdist, and the wheel on its own."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import seedscope
from helpers import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()


def run(*command: str | Path, **options) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build(target: str, source: Path, folder: Path) -> Path:
    """Build the wheel or the sdist of the tree in `source`, without the network."""
    run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder, cwd=source)
    [built] = folder.iterdir()
    return built


def files_of_wheel(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def package_files() -> set[str]:
    """The files of the package, without those that Python compiled."""
    return {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "seedscope").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of a virtual environment that has the wheel.

    A .pth file lends it torch and NumPy from the environment that runs the tests: to install them
    takes minutes. Python reads no .pth file in a folder that is lent like this, so an editable
    seedscope is not lent with them. The environment's own folder comes first, and a
    package comes from one folder alone: a file that the wheel lacks is not found elsewhere.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    lent = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *sys.path}
    lines = [path for path in lent if Path(path).name in {"site-packages", "dist-packages"}]
    run(python, "-m", "pip", "install", "--no-index", "--no-deps", wheel)
    (Path(site) / "lent.pth").write_text("\n".join(sorted(lines)) + "\n")
    return scripts


def run_installed(installed: Path, folder: Path, code: str) -> str:
    """Return the output of `code` where Python finds only the wheel."""
    names = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    return run(installed / "python", "-c", code, cwd=folder, env=environment)


def test_the_oldest_classifier_is_the_oldest_allowed_python():
    oldest = tuple(map(int, PROJECT["requires-python"].removeprefix(">=").split(".")))
    named = re.findall(r"Python :: (3)\.(\d+)$", "\n".join(PROJECT["classifiers"]), re.M)
    assert min((int(major), int(minor)) for major, minor in named) == oldest


def test_the_hooks_have_the_versions_of_the_constraints():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    pinned = re.findall(r"additional_dependencies: \[(.*)\]", hooks)
    assert len(pinned) == hooks.count("- id:")
    assert set(pinned) <= set(CONSTRAINTS.splitlines())


@pytest.mark.parametrize("extra", ["dev", "test"])
def test_every_tool_has_a_pinned_version(extra):
    requirements = PROJECT["dependencies"] + PROJECT["optional-dependencies"][extra]
    named = {re.split(r"[\[;<>=]", requirement)[0] for requirement in requirements}
    pinned = {line.split("==")[0] for line in CONSTRAINTS.splitlines()}
    assert named - {"seedscope"} <= pinned


@pytest.mark.slow
def test_the_wheel_has_the_files_of_the_package_and_no_others(wheel, package_files):
    info = f"seedscope-{seedscope.__version__}.dist-info"
    assert "seedscope/py.typed" in package_files
    assert files_of_wheel(wheel) == {
        *package_files,
        f"{info}/METADATA",
        f"{info}/RECORD",
        f"{info}/WHEEL",
        f"{info}/entry_points.txt",
        f"{info}/licenses/LICENSE",
    }


@pytest.mark.slow
def test_the_metadata_of_the_wheel_is_that_of_the_project(wheel):
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Version"] == seedscope.__version__
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_all("Classifier") == PROJECT["classifiers"]
    always = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert sorted(always) == sorted(PROJECT["dependencies"])
    assert (ROOT / "README.md").read_text().strip() in metadata.get_payload(decode=True).decode()


@pytest.mark.slow
def test_the_sdist_has_only_the_package_and_builds_the_wheel(sdist, wheel, package_files, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    [tree] = tmp_path.iterdir()
    files = {file.relative_to(tree).as_posix() for file in tree.rglob("*") if file.is_file()}
    about = {"CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml", ".gitignore"}
    assert files == package_files | about
    assert files_of_wheel(build("wheel", tree, tmp_path / "again")) == files_of_wheel(wheel)


@pytest.mark.slow
def test_every_module_and_public_name_comes_from_the_wheel(installed, tmp_path):
    code = f"""
import importlib, pkgutil, sys
from pathlib import Path
import seedscope
folder = Path(seedscope.__file__).parent
assert Path(sys.prefix) in folder.parents, folder
names = [module.name for module in pkgutil.walk_packages([str(folder)], "seedscope.")]
for name in names:
    if not name.endswith("__main__"):
        module = importlib.import_module(name)
        assert Path(module.__file__).is_relative_to(folder), module
public = [name for name in seedscope.__all__ if getattr(seedscope, name) is not None]
assert public == {seedscope.__all__!r}
assert (folder / "py.typed").is_file()
print(len(names))
"""
    modules = [*(ROOT / "seedscope").rglob("*.py")]
    assert int(run_installed(installed, tmp_path, code)) == len(modules) - 1  # the package itself


@pytest.mark.slow
def test_the_first_lines_of_the_readme_run_with_the_wheel(installed, tmp_path):
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    run_installed(installed, tmp_path, block)


@pytest.mark.slow
def test_the_command_runs_with_the_wheel(installed, tmp_path):
    command = installed / "seedscope"
    assert run(command, "--help", cwd=tmp_path).startswith("usage: seedscope")
    script = tmp_path / "train.py"
    script.write_text("import random; print(random.random())")
    printed = [run(command, "run", "--seed", "1029", script, cwd=tmp_path) for _ in range(2)]
    assert printed[0]
    assert printed[0] == printed[1]
