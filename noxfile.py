"""The checks of the project: `nox --list` names them, `nox -s lint` runs one."""

from __future__ import annotations

from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.error_on_missing_interpreters = False  # a Python that is not there is skipped
nox.options.envdir = "build/nox"
nox.options.sessions = ["lint", "typing", "docs", "tests"]

CONSTRAINTS = Path("constraints.txt")
PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)  # those of the classifiers

# Tests that count what a fresh interpreter has loaded: a measured interpreter has loaded more.
NOT_MEASURED = [
    "test_importing_is_light",
    "test_the_package_and_its_command_load_torch_only_when_needed",
    "test_the_commands_help_loads_nothing_that_it_does_not_need",
]


def install(session: nox.Session, *packages: str, constraints: Path = CONSTRAINTS) -> None:
    session.install("-c", str(constraints), *packages)


def oldest_versions(session: nox.Session) -> Path:
    """The constraints, with the oldest release of each dependency that pyproject.toml allows."""
    oldest = [
        requirement.replace(">=", "==") + ".*" for requirement in PROJECT["project"]["dependencies"]
    ]
    replaced = {requirement.split("==")[0] for requirement in oldest}
    # The pinned ones need a newer NumPy or torch: pip finds some that do not.
    replaced |= {"monai", "pandas"}
    kept = [
        line for line in CONSTRAINTS.read_text().splitlines() if line.split("==")[0] not in replaced
    ]
    file = Path(session.create_tmp()) / "oldest.txt"
    file.write_text("\n".join([*kept, *oldest]) + "\n")
    return file


@nox.session
@nox.parametrize(
    ("python", "versions"),
    [(PYTHONS[0], "oldest"), *((python, "newest") for python in PYTHONS)],
)
def tests(session: nox.Session, versions: str) -> None:
    """Run the tests, with the oldest or the newest torch and NumPy."""
    constraints = oldest_versions(session) if versions == "oldest" else CONSTRAINTS
    install(session, "-e", ".[test]", constraints=constraints)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests that take longer."""
    install(session, "-e", ".[test]")
    session.run("python", "-m", "pytest", "-m", "slow", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Run each Python block of the documents, and follow their links."""
    install(session, "-e", ".[test]")
    session.run("python", "-m", "pytest", "tests/test_readme.py", *session.posargs)


@nox.session
def typing(session: nox.Session) -> None:
    """Check the types of the package, and that each public name has one."""
    install(session, "-e", ".[test]")
    session.run("mypy", "--strict", "seedscope", "tests/typing/api.py")
    session.run("pyright", "--warnings", "tests/typing/api.py")
    session.run("pyright", "--verifytypes", "seedscope", "--ignoreexternal")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, spelling, the direction of imports, and the form of pyproject.toml."""
    install(session, "ruff", "codespell", "import-linter", "pyproject-fmt")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("codespell")
    session.run("lint-imports", "--no-cache")
    session.run("pyproject-fmt", "--check", "pyproject.toml")


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure which lines and branches the tests run, in child processes too."""
    install(session, "-e", ".[test]", "coverage")
    chosen = " and ".join(f"not {name}" for name in NOT_MEASURED)
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "-k", chosen, *session.posargs)
    session.run("coverage", "combine")
    session.run("coverage", "report")


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel and the sdist, and check what a package index would show."""
    install(session, "build", "hatchling", "twine")
    folder = Path(session.create_tmp()) / "dist"
    if folder.exists():
        for file in folder.iterdir():
            file.unlink()
    session.run("python", "-m", "build", "--no-isolation", "--outdir", str(folder))
    session.run("twine", "check", "--strict", *(str(file) for file in folder.iterdir()))
