"""The history of a run: table, summary, best epoch."""

import pytest

from stages.common.history import best_epoch, epoch_of_stop, history_of, kept_epoch, summary_of, table_of


def test_the_best_epoch_is_the_first_of_the_lowest():
    assert best_epoch([{"loss": 1.0}]) is None
    assert best_epoch([{"val_loss": value} for value in (2.0, 1.0, 1.5, 1.0)]) == 1
    assert best_epoch([{"val_loss": value} for value in (float("nan"), 1.0, 0.5, float("nan"))]) == 2


@pytest.mark.parametrize(
    ("losses", "patience", "stop"),
    [
        ([], 1, None),
        ([3, 2, 1], 1, None),
        ([3, 2, 2, 1], 1, 2),
        ([3, 2, 2, 1], 2, None),
        ([3, 2, 2, 2.5, 1], 2, 3),
        ([1, 2, 3], None, None),
        ([1, 2, 3], 3, None),
        ([1, 2, 3, 4], 3, 3),
    ],
)
def test_training_stops_after_epochs_without_a_lower_loss(losses, patience, stop):
    assert epoch_of_stop([{"val_loss": loss} for loss in losses], patience) == stop


def test_the_table_can_be_read_back():
    history = [
        {"loss": 2.5, "bits_per_char": 3.6, "val_loss": 3.5, "val_bits_per_char": 5.0},
        {"loss": 1.5, "bits_per_char": 2.2, "val_loss": 3.0, "val_bits_per_char": 4.3},
    ]
    assert history_of(table_of(history, "last"), "last") == history
    assert table_of([{"loss": 2.5, "bits_per_char": 3.6}], "last") == (
        "epoch\tpart\tloss\tbits_per_char\n0\ttraining\t2.5\t3.6\n"
    )


def test_the_table_says_which_losses_are_over_all_positions():
    values = (
        "loss",
        "bits_per_char",
        "val_loss",
        "val_bits_per_char",
        "val_all_loss",
        "val_all_bits_per_char",
    )
    history = [dict(zip(values, (1.5, 2.2, 3.0, 4.3, 3.5, 5.0), strict=True))]
    table = table_of(history, "all")
    assert [line.split("\t")[1:] for line in table.splitlines()[1:]] == [
        ["training, all positions", "1.5", "2.2"],
        ["validation", "3.0", "4.3"],
        ["validation, all positions", "3.5", "5.0"],
    ]
    assert history_of(table, "all") == history


def test_the_kept_epoch_is_the_last_or_the_best():
    history = [{"loss": 3.0, "val_loss": 3.2}, {"loss": 2.0, "val_loss": 2.9}, {"loss": 1.0, "val_loss": 3.1}]
    assert (kept_epoch(history, "last"), kept_epoch(history, "best")) == (2, 1)
    assert kept_epoch([{"loss": 1.0}, {"loss": 2.0}], "last") == 1


def test_the_summary_is_of_the_kept_epoch():
    history = [
        {"loss": 2.5, "bits_per_char": 3.6, "val_loss": 3.0, "val_bits_per_char": 4.3},
        {"loss": 1.5, "bits_per_char": 2.2, "val_loss": 3.5, "val_bits_per_char": 5.0},
    ]
    last = {"loss": 1.5, "bits_per_char": 2.2, "val_loss": 3.5, "best_epoch": 0}
    assert summary_of(history, 1) == last
    assert summary_of(history, 0) == {"loss": 2.5, "bits_per_char": 3.6, "val_loss": 3.0, "best_epoch": 0}
    tested = {"loss": 1.5, "test_loss": 4.0, "val_loss": 3.5, "best_epoch": 0}
    assert summary_of(history, 1, {"test_loss": 4.0, "test_bits_per_char": 5.8}) == tested
    assert summary_of([{"loss": 2.5, "bits_per_char": 3.6}], 0) == {"loss": 2.5, "bits_per_char": 3.6}
