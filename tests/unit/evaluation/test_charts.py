"""Charts, drawn by Vega itself."""

import vl_convert

from stages.evaluation.charts import loss_chart


def test_the_only_loss_of_a_run_is_its_label():
    chart = loss_chart([{"loss": 2.48712, "bits_per_char": 3.588}], None, "last")
    assert ">2.487</text>" in vl_convert.vegalite_to_svg(chart["spec"] | {"width": 300})
