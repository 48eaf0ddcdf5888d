"""Stage `train`: the model, a checkpoint after every epoch, losses.

The article's `model.fit`, an epoch at a time. Epochs that were computed before come out of the checkpoint
store (`stages/training/store.py`). With several workers (`stages/distributed/`) this process is the
coordinator.
"""

import os

from stages.common.combinations import require_validation_split
from stages.common.errors import StageError, run_stage
from stages.common.files import require_as_checked, sha256_of
from stages.common.params import Train, read_params
from stages.common.paths import INITIAL_FILES
from stages.distributed.cluster import cluster_to_coordinate
from stages.text.vocabulary_file import model_text
from stages.text.windows import Windows
from stages.text.windows_file import load_windows
from stages.training.initial_weights import file_of


def main() -> None:
    """Train as the parameters say."""
    params = read_params()
    if weights := file_of(params.train.init_from):
        require_as_checked(INITIAL_FILES, weights, sha256_of(weights))
    cluster = cluster_to_coordinate(params.train.workers)
    windows = load_windows()
    require_validation_split(params.train, len(windows.x_val) > 0)
    require_two_steps(params.train, windows)
    text = model_text(windows, params.vectorize, params.train.state == "carried")
    text.encode(params.sample.prompt, "sample.prompt")  # or the sample stage would fail after the training
    if cluster:  # TensorFlow reports lost workers in many lines; here it is one
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow takes seconds to import, so mistakes in the above are reported before
    import stages.training.device  # noqa: F401, first: it imports TensorFlow without its messages
    from stages.training.loop import train

    train(params, windows, text, cluster)
    if read_params() != params:  # DVC reads the file when a stage ends
        raise StageError(
            "params.yaml was changed while training ran, so DVC would record other parameters than "
            "were used; finished epochs are kept, run `dvc repro` again"
        )


def require_two_steps(settings: Train, windows: Windows) -> None:
    """Check that a state that is to be carried has a next window to be carried to.

    Args:
        settings: the section `train` of `params.yaml`.
        windows: the windows.

    Raises:
        StageError: an epoch has a single step.
    """
    if settings.state == "carried" and len(windows.x) < 2 * settings.batch_size:
        raise StageError(
            f"train.state: got 'carried'; takes reset where there are fewer than 2 train.batch_size "
            f"({2 * settings.batch_size:,}) windows, here {len(windows.x):,}: no state would be carried; or "
            "take a smaller train.batch_size"
        )


if __name__ == "__main__":
    run_stage(main)
