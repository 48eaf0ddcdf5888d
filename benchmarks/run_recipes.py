"""An epoch of each recipe, in turn."""

from pathlib import Path

from benchmarks.measure import column, middle, ratio, table
from benchmarks.projects import epochs_in_turn, settings_of
from stages.common.recipes import names


def recipes_in_turn(corpus: Path, turns: int) -> None:
    """An epoch of each recipe; the article's setting comes first."""
    named = {name: settings_of(name) for name in sorted(names(), key=lambda name: (name != "article", name))}
    epochs = {name: settings.get("train__epochs", 40) for name, settings in named.items()}
    clocks = epochs_in_turn(corpus, named, turns)
    seconds = {name: column(each, "seconds") for name, each in clocks.items()}
    whole = {name: [each * epochs[name] for each in seconds[name]] for name in named}
    article = next(iter(named))
    rows = [
        (name, str(epochs[name]), middle(seconds[name]), ratio(whole[name], whole[article])) for name in named
    ]
    table(
        f"Recipes ({corpus.name}, {turns} turns)",
        ("", "epochs", "an epoch, s", "training time, of the first one's (of the turns)"),
        rows,
    )
