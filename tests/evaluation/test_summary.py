from keras_robust.evaluation._summary import summarise


def artifact(kind, clean, worst, gzip_bytes, sources=("robust",)):
    return {
        "kind": kind,
        "clean_accuracy": clean,
        "worst_case": worst,
        "worst_case_interval": [worst - 0.02, worst + 0.02],
        "gzip_bytes": gzip_bytes,
        "sources": {"PGD-20": dict.fromkeys(sources, 1)},
    }


def data(**artifacts):
    return {
        "data": {"images": 2000, "shape": [28, 28, 1]},
        "attacks": [{"name": "PGD-20", "norm": "linf", "eps": 0.1, "kind": "ball", "added": False}],
        "artifacts": artifacts,
    }


NATURAL = artifact("keras", 0.9, 0.03, 100_000)
ROBUST = artifact("keras", 0.8, 0.70, 100_000)


def test_shipped_file_is_compared_with_the_most_robust_model():
    file = artifact("tflite", 0.79, 0.65, 8_000, ("quantized", "robust"))
    text = " ".join(summarise(data(natural=NATURAL, robust=ROBUST, int8=file)))
    assert text == (
        '"int8" classifies 79.0% of 2,000 images correctly, and 65.0% (95% interval 63.0 to '
        '67.0%) still under PGD-20 with linf eps 0.1. That is 5.0 points less than "robust", the '
        "most robust model beside it; gzipped it is 12.5 times smaller (8.0 against 100.0 KB). "
        "The two 95% intervals do not overlap. The file was attacked with examples made on "
        '"quantized" and "robust". "natural" falls from 90.0% to 3.0% under the same attacks.'
    )


def test_small_gap_is_called_chance():
    file = artifact("tflite", 0.79, 0.69, None)
    text = " ".join(summarise(data(robust=ROBUST, int8=file)))
    assert "1.0 points less" in text and "may be chance" in text and "gzipped" not in text


def test_without_a_file_the_most_robust_model_leads():
    (sentence, second) = summarise(data(natural=NATURAL, robust=ROBUST))
    assert sentence.startswith('"robust" classifies 80.0%')
    assert second.startswith('"natural" falls')
    assert len(summarise(data(robust=ROBUST))) == 1
    assert summarise(data(file=artifact("tflite", 0.8, 0.7, 1)))[0].startswith('"file"')
