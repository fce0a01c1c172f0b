from keras_robust.compress import Result, Stage


def stage(**changes):
    row = {
        "name": "d",
        "kernel": "kernel",
        "weights": 1000,
        "sparsity_before": None,
        "sparsity_after": 0.5,
        "distinct_before": 1000,
        "distinct_after": 16,
        "int8_values": 20,
    }
    small = row | {"name": "e", "weights": 10, "sparsity_after": 0.0, "sparsity_before": 0.0}
    arguments = dict(name="clustered", model="m", history={"loss": [1]}, layers=[row, small])
    return Stage(**(arguments | changes))


def test_table_by_hand():
    result = Result("o", [stage(broken=["layer 'd': lost"])])
    assert result.summary().splitlines() == [
        "stage      layer              weights        sparsity       values  int8",
        "---------  -----------------  -------  --------------  -----------  ----",
        "clustered  d/kernel             1,000           0.500  1,000 -> 16    20",
        "clustered  e/kernel                10  0.000 -> 0.000  1,000 -> 16    20",
        "clustered  ! layer 'd': lost",
    ]


def test_sparsity_weighs_the_kernels_and_models_are_by_name():
    one = stage()
    assert one.sparsity == 500 / 1010
    assert Result("o", [one]).models == {"original": "o", "clustered": "m"}
    assert one.to_dict()["history"] == {"loss": [1.0]} and "model" not in one.to_dict()
