"""`python -m benchmarks` lists the suites; `python -m benchmarks SUITE ...` runs one."""

from __future__ import annotations

import argparse
import importlib
import sys

# Kept as text, so that the list of suites imports neither torch nor any suite.
SUITES = {
    "data_throughput": "what SeededDataset and seeded_loader cost, and what resuming takes",
    "determinism_cost": "what each determinism setting costs small networks on the CPU",
    "diagnosis_overhead": "what the trace of diagnose costs a step, beside other ways to compare",
    "evaluation_overhead": "what entering and leaving evaluating(model) costs",
    "gpu": "everything that a GPU can tell, within a number of seconds",
    "op_atlas": "which operations repeat on the CPU, beside what three lists say",
    "replacements": "what replacements cost: closed, at entry, and in place of torch's kernels",
    "report": "Markdown tables and figures of what benchmarks/results/ holds",
    "scope_overhead": "what entering and leaving a scope costs, beside its floor and its peers",
    "sweep_overhead": "what the run log and a sweep cost, and the speed-up of processes",
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        usage="%(prog)s SUITE [options of the suite, or --help]",
        description="Suites:\n" + "\n".join(f"  {name}: {what}" for name, what in SUITES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suite", choices=SUITES, nargs="?", help=argparse.SUPPRESS)
    # The suite parses the arguments after its name.
    suite = parser.parse_args(arguments[:1]).suite
    if suite is None:
        parser.print_help()
        return 0
    return int(importlib.import_module(f"benchmarks.{suite}").main(arguments[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
