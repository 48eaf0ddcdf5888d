"""What `python stages/NAME.py` finds instead of the package `stages`: one line that says how to run it."""

import sys

sys.exit("error: run `python -m stages.NAME` from the project's root")
