"""XLA without YNNPACK; to be imported before TensorFlow.

XLA gives some sums and products to YNNPACK. In TensorFlow 2.21 two microbatches that run such a program at
the same time crash the process now and then (seen 2 times in 45 runs with `train.targets: all`). The weights
of the article's model do not depend on it.
"""

import os

WITHOUT_YNNPACK = "--xla_cpu_experimental_ynn_fusion_type="
if WITHOUT_YNNPACK not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {WITHOUT_YNNPACK}".strip()
