"""Runs side by side: `python -m stages.compare [EXPERIMENT ...]` writes `metrics/compare.html`.

It reads experiments and revisions out of git and DVC's cache; the workspace stays as it is.
"""

from pathlib import Path

from stages.common.cli import Parser
from stages.common.errors import run_stage
from stages.common.files import write_bytes_atomically
from stages.evaluation.comparison import render_comparison
from stages.evaluation.runs import WORKSPACE, read_runs

COMPARE_FILE = Path("metrics/compare.html")  # no stage reads or writes it


def main() -> None:
    """Read the runs that the command line names; write the page."""
    parser = Parser(
        prog="python -m stages.compare",
        description="Draw several runs on one page: what differs between their parameters, losses, quality, "
        "and samples of the same epoch and temperature.",
        epilog="Without names the workspace is compared with the last commit, HEAD.",
    )
    about = "an experiment as `dvc exp show` names it, a git revision, or `workspace`"
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help=about)
    parser.add_argument("--no-workspace", action="store_true", help="compare only what is named")
    options = parser.parse_args()
    names = options.names or ["HEAD"]
    if not options.no_workspace:
        names = [WORKSPACE, *(name for name in names if name != WORKSPACE)]
    runs = read_runs(names)
    write_bytes_atomically(COMPARE_FILE, render_comparison(runs).encode())
    print(f"{', '.join(run.name for run in runs)}: {COMPARE_FILE}")
    if len(runs) == 1 < len(names):
        print("they have the same parameters and results; `dvc exp show` lists other runs")


if __name__ == "__main__":
    run_stage(main)
