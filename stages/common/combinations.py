"""Parameters that only go together, or only with a device: each mistake is one line."""

from stages.common.errors import StageError
from stages.common.params import Params, Train


def require_fitting(params: Params, device: str) -> None:
    """Check that the parameters of model and training go together.

    Args:
        params: all parameters.
        device: cpu or gpu.

    Raises:
        StageError: they do not.
    """
    train, model, windows = params.train, params.model, params.vectorize
    if device == "cpu" and train.precision == "tf32":
        raise StageError(
            "train.precision: got 'tf32'; takes float32 or mixed_bfloat16 on a CPU, which has no TF32"
        )
    if device == "cpu":
        require_enough_microbatches(train, train.workers, "train.workers")
    needing = {
        "state": (train.state, "reset"),
        "weight_dropout": (train.weight_dropout, 0),
        "embedding_dropout": (train.embedding_dropout, 0),
        "variational_dropout": (train.variational_dropout, False),
        "tied_embedding": (train.tied_embedding, False),
    }
    for name, (given, default) in needing.items():
        shown = str(default).lower()
        if given != default and device == "gpu":
            raise StageError(
                f"train.{name}: got {given!r}; takes {shown} on a GPU (train.device: cpu has it)"
            )
        if given != default and train.targets != "all":
            raise StageError(f"train.{name}: got {given!r}; takes {shown} unless train.targets is all")
    if train.variational_dropout and not model.dropout:
        raise StageError("train.variational_dropout: got true; takes false unless model.dropout is above 0")
    if train.tied_embedding and model.embedding != model.units:
        raise StageError(
            f"train.tied_embedding: got true; takes false unless model.embedding (here {model.embedding}) is "
            f"equal to model.units ({model.units})"
        )
    if train.state == "carried":
        if train.steps_per_epoch == 1:
            raise StageError(
                "train.steps_per_epoch: got 1; takes 2 or more, or null, with train.state: carried, since a "
                "state is carried within an epoch"
            )
        steps = {"step": windows.step}
        if windows.validation or windows.test:
            steps["validation_step"] = windows.validation_step
        for name, step in steps.items():
            if step != windows.maxlen:
                raise StageError(
                    f"vectorize.{name}: got {step}; takes vectorize.maxlen, {windows.maxlen}, with "
                    "train.state: carried, so that each window begins where the one before it ends"
                )


def require_enough_microbatches(train: Train, workers: int, name: str) -> None:
    """Check that each worker on a CPU has a microbatch.

    Args:
        train: the section `train` of `params.yaml`.
        workers: their number.
        name: of what asks for so many.

    Raises:
        StageError: there are more workers than microbatches.
    """
    if workers > train.microbatches:
        raise StageError(
            f"{name}: got {workers} workers; takes at most {train.microbatches} (train.microbatches, which "
            "they share out)"
        )


def require_validation_split(train: Train, there: bool) -> None:
    """Check that parameters which need a validation split have one.

    Args:
        train: the section `train` of `params.yaml`.
        there: whether there is a validation split.

    Raises:
        StageError: `keep` or `patience` is set and there is none.
    """
    defaults = {"keep": (train.keep, "last"), "patience": (train.patience, None)}
    for name, (given, default) in defaults.items():
        if given != default and not there:
            raise StageError(
                f"train.{name}: got {given!r}; takes {default or 'null'} unless vectorize.validation is "
                "above 0, since only a validation loss tells which epoch is best"
            )
