"""Recipes for experiments: `dvc exp run $(python -m stages.recipe NAME)`; without a name it lists them."""

from stages.common.cli import Parser
from stages.common.errors import StageError, run_stage
from stages.common.recipes import names, options_of, read_recipe


def main() -> None:
    """Print a recipe as options of `dvc exp run`, or the list of recipes."""
    parser = Parser(prog="python -m stages.recipe", description=__doc__)
    parser.add_argument("name", nargs="?", help="of a file in recipes/, without .yaml")
    try:
        name = parser.parse_args().name
        if name is not None:
            print(*options_of(read_recipe(name)))
            return
    except (StageError, OSError, SystemExit) as error:
        if not isinstance(error, SystemExit) or error.code:  # --help is no mistake
            print("--no-such-recipe")  # so that DVC refuses to run, instead of running without options
        raise
    if not names():
        raise StageError("there is no recipe in recipes/; run from the project's root")
    for each in names():
        print(f"{each}: {read_recipe(each).about}")


if __name__ == "__main__":
    run_stage(main)
