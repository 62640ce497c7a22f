"""`seedscope run`: like `python`, with a scope around the program."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from importlib import metadata

import pytest

from helpers import ROOT, seedscope_command
from seedscope import RunLog
from seedscope.launch import interpreter

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def slow(value: str):
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def python(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, **options
    )


def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return seedscope_command("run", *arguments, **options)


LOOK_AROUND = """
import json, sys
main = sys.modules["__main__"]
names = sorted(name for name in vars(main) if name.startswith("__"))
print(json.dumps([
    sys.argv, sys.path, __name__, __file__, __package__, getattr(__spec__, "name", None),
    main.__dict__ is globals(), sys.stdin.read(), names,
]))
"""


@pytest.mark.parametrize(
    "kind", ["script", "module", slow("package"), slow("folder"), slow("archive")]
)
def test_a_program_sees_the_same_as_under_plain_python(kind, tmp_path):
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "look.py").write_text(LOOK_AROUND)
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").write_text("")
    shutil.copy(folder / "look.py", folder / "pack" / "__main__.py")
    shutil.copy(folder / "look.py", folder / "__main__.py")
    with zipfile.ZipFile("look.zip", "w") as archive:
        archive.write(folder / "look.py", "__main__.py")
    program = {
        "script": ["programs/look.py"],
        "module": ["-m", "programs.look"],
        "package": ["-m", "programs.pack"],
        "folder": ["programs"],
        "archive": ["look.zip"],
    }[kind]
    arguments = [*program, "--seed", "5", "-m", "--", "x y"]
    plain = python(*arguments, input="typed")
    inside = run("--seed", "3", *arguments, input="typed")
    assert inside.returncode == 0, inside.stderr
    ignored = {"__annotations__", "__cached__", "__loader__", "__doc__"}
    expected, found = (json.loads(done.stdout) for done in (plain, inside))
    found[1] = found[1][: len(expected[1])]  # torch may add a folder when it is imported
    assert found[:-1] == expected[:-1]
    assert set(found[-1]) - ignored == set(expected[-1]) - ignored


@pytest.mark.parametrize(
    "ending",
    [
        "pass",
        "sys.exit(3)",
        slow("sys.exit('gone wrong')"),
        "f()",
        "def g(:",
        "os.kill(os.getpid(), signal.SIGINT)",
        "os.kill(os.getpid(), signal.SIGTERM)",
        "os._exit(7)",
        slow("raise BrokenPipeError(32, 'a connection')"),
        "from concurrent.futures import *; print(ThreadPoolExecutor(2).submit(len, 'ab').result())",
        slow("import seedscope; seedscope.seeded(1).__enter__()"),
        slow("import seedscope as s, contextlib as c; c.ExitStack().enter_context(s.seeded(1))"),
        slow("import atexit; atexit.register(print, 'the end')"),
    ],
)
def test_a_program_ends_as_under_plain_python(ending, tmp_path):
    (tmp_path / "end.py").write_text(
        f"""
import os, signal, sys
def f():
    try:
        1 / 0
    except ZeroDivisionError as error:
        raise ValueError("oops") from error
{ending}
"""
    )
    plain, inside = python("end.py"), run("--seed", "3", "end.py")
    assert inside.returncode == plain.returncode
    assert inside.stderr.replace("seedscope: ", "") == plain.stderr
    assert inside.stdout == plain.stdout


def test_ctrl_c_is_logged_and_ends_the_program_by_the_signal(tmp_path):
    (tmp_path / "wait.py").write_text("import time; print('here', flush=True); time.sleep(60)")
    command = [sys.executable, "-m", "seedscope", "run", "wait.py"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert "launch.py" not in said
    assert [done.outcome for done in RunLog("runs.jsonl")] == ["KeyboardInterrupt"]


def test_a_drawn_seed_is_printed_logged_and_repeats_the_result(tmp_path):
    (tmp_path / "draw.py").write_text(
        """
import os, random, sys
import numpy as np
import torch
from seedscope import note
values = [random.random(), np.random.rand(), torch.rand(1).item(), hash("text")]
note(value=values[2])
print(values, os.environ["PYTHONHASHSEED"], os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
assert torch.are_deterministic_algorithms_enabled() == (sys.argv[1:] != ["loose"])
assert not [name for name in os.environ if name.startswith("SEEDSCOPE")]
"""
    )
    first, other = run("draw.py"), run("draw.py")
    told = r"seedscope: run ([0-9a-f]{8}) of seed (\d+), logged in runs.jsonl\n"
    said = re.fullmatch(told, first.stderr)
    assert said, first.stderr
    assert first.returncode == 0, first.stderr
    again = run("--seed", said[2], "--log", "other.jsonl", "draw.py")
    assert again.stdout == first.stdout != other.stdout
    assert again.stderr == ""
    loose = run("--seed", said[2], "--deterministic", "false", "draw.py", "loose")
    assert loose.stdout == first.stdout, loose.stderr
    runs = [*RunLog("runs.jsonl")]
    assert [done.seed for done in runs][::2] == [int(said[2])] * 2
    assert runs[0].id.startswith(said[1])
    assert runs[0].notes["value"] == float(first.stdout.split(",")[2])
    assert runs[0].script == str(tmp_path / "draw.py")
    assert runs[0].what() == "seedscope run draw.py"
    assert [done.seed for done in RunLog("other.jsonl")] == [int(said[2])]


@pytest.mark.parametrize(("version", "set_to"), [("2.10.0", ":4096:8"), ("2.11.0", None)])
def test_the_cublas_workspace_is_set_for_the_torch_that_will_run(monkeypatch, version, set_to):
    started = []
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(metadata, "version", {"torch": version}.get)
    monkeypatch.setattr(os, "execve", lambda path, arguments, values: started.append(values))
    interpreter.start_anew(7, ["x.py"])
    assert started[0].get("CUBLAS_WORKSPACE_CONFIG") == set_to
    assert started[0]["PYTHONHASHSEED"] == "7"


def test_a_closed_or_full_stream_does_not_stop_the_program(tmp_path):
    (tmp_path / "ok.py").write_text("open('ran', 'w').close()")
    for redirected in (">&-", "2>&-", "2>/dev/full", "2> >(exec true)"):
        command = f"{sys.executable} -m seedscope run ok.py {redirected}"
        assert subprocess.run(["bash", "-c", command], timeout=60).returncode == 0, redirected
        (tmp_path / "ran").unlink()


def test_an_unrepeatable_operation_raises_with_alternatives(tmp_path):
    (tmp_path / "resize.py").write_text(
        """
import torch
torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.quint8).resize_(2)
"""
    )
    done = run("--seed", "3", "resize.py")
    assert done.returncode == 1
    assert "seedscope has no replacement of its own for this operation" in done.stderr


def test_a_package_draws_inside_the_scope_when_it_is_imported(tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("import random; X = random.random()")
    (tmp_path / "pack" / "train.py").write_text("from . import X; print(X)")
    first, again = (run("--seed", "7", "-m", "pack.train").stdout for _ in range(2))
    assert first == again
    assert float(first)


def test_interpreter_options_and_the_environment_are_kept(tmp_path):
    (tmp_path / "flags.py").write_text("import os, sys; print(sys.flags.dev_mode, os.environ['A'])")
    command = [sys.executable, "-X", "dev", "-W", "ignore", "-m", "seedscope", "run", "flags.py"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "A": "b"}
    )
    assert done.stdout == "True b\n", done.stderr
    (logged,) = RunLog("runs.jsonl")
    assert logged.command[1:5] == ["-X", "dev", "-W", "ignore"]
    done = python(
        "-Bm", "seedscope", "run", "--seed", "1", "flags.py", env={**os.environ, "A": "c"}
    )
    assert done.stdout == "False c\n", done.stderr
    done = python("-E", "-c", "import sys; sys.path.insert(0, sys.argv.pop()); " + CALL, str(ROOT))
    assert "python -E and -I ignore PYTHONHASHSEED" in done.stderr


CALL = "from seedscope.cli.main import main; main(['run', '--seed', '1', 'flags.py'])"


def test_the_programs_own_processes_threads_and_scopes_work(tmp_path):
    (tmp_path / "many.py").write_text(
        """
import multiprocessing, random, sys, threading, time

class Own:
    def __init__(self, x): self.x = x

def work(own):
    return own.x + 1, __name__

def later():
    time.sleep(0.5)
    print("drawn", random.random(), flush=True)  # after the main thread has ended

def scoped():
    from seedscope import seeded
    with seeded(5):
        print("scoped", random.random(), flush=True)

if __name__ == "__main__":
    for method in ("spawn", "forkserver", "fork"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(pool.map(work, [Own(1)]))
    thread = threading.Thread(target=scoped)
    thread.start()
    thread.join()
    threading.Thread(target=later).start()
    sys.exit(0)
"""
    )
    plain = python("many.py").stdout.splitlines()
    fresh, inside = run("many.py"), run("--seed", "3", "many.py")
    assert inside.returncode == 0, inside.stderr
    shown = inside.stdout.splitlines()
    assert shown[:3] == fresh.stdout.splitlines()[:3] == plain[:3]
    assert shown[3] == fresh.stdout.splitlines()[3]
    assert shown[3].startswith("scoped")
    assert shown[4].startswith("drawn")
    assert shown[4] != fresh.stdout.splitlines()[4]
    assert run("--seed", "3", "many.py").stdout == inside.stdout


def test_under_torchrun_the_ranks_share_a_fresh_seed(tmp_path):
    (tmp_path / "rank.py").write_text(
        """
import os, torch
from seedscope import note
note(value=torch.rand(1).item())
"""
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", "-m", "seedscope", "run", "rank.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    runs = sorted(RunLog("runs.jsonl"), key=lambda run: run.rank)
    assert [run.rank for run in runs] == [0, 1]
    assert runs[0].seed == runs[1].seed
    assert runs[0].notes == runs[1].notes
    assert done.stderr.count(f"of seed {runs[0].seed}, logged") == 1


def test_several_ranks_without_a_store_need_a_seed(tmp_path):
    (tmp_path / "rank.py").write_text("print('ran')")
    environment = {**os.environ, "RANK": "1", "WORLD_SIZE": "2"}
    done = run("rank.py", env=environment)
    assert done.returncode == 2
    assert done.stderr == "seedscope: several ranks need a common seed: pass it with --seed N\n"
    assert run("--seed", "1", "rank.py", env=environment).stdout == "ran\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "run needs a script, or -m and a module"),
        (["nowhere.py"], "cannot run nowhere.py: there is no such file"),
        (["-m", "no.such.module"], "cannot run the module no.such.module: "),
        (["."], "cannot run ., which needs a __main__.py"),
    ],
)
def test_a_missing_program_is_one_line_and_exit_code_2(arguments, says):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"seedscope: {says}")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not os.path.exists("runs.jsonl")


def test_a_log_that_cannot_be_written_does_not_stop_the_program(tmp_path):
    (tmp_path / "ok.py").write_text("print('done')")
    (tmp_path / "file").write_text("")
    done = run("--log", "file/runs.jsonl", "ok.py")
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "could not be logged" in done.stderr
