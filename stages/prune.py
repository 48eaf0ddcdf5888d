"""Delete checkpoints that are no longer needed: `python -m stages.prune`.

The checkpoint store keeps every epoch that was computed. This command keeps the runs that `dvc.lock` of the
workspace, a branch, a tag or an experiment lists, and those written within the last days; it deletes the
others.
"""

from stages.common.cli import Parser, number
from stages.common.errors import run_stage
from stages.training.pruning import prune


def main() -> None:
    """Prune the store, and print what was freed."""
    parser = Parser(prog="python -m stages.prune", description=__doc__)
    parser.add_argument(
        "--days",
        type=number(0, 36_500),
        default=1,
        metavar="N",
        help="keep runs that were written within N days (%(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="delete nothing, only print")
    options = parser.parse_args()
    prune(options.days, options.dry_run)


if __name__ == "__main__":
    run_stage(main)
