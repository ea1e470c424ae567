"""Which cases there are."""

import pytest

from normkit.bench import cases
from normkit.bench.cases import Case

FULL = cases.full()


def having(**wanted):
    return [case for case in FULL if all(getattr(case, name) == value for name, value in wanted.items())]


def test_the_full_run_holds_the_promised_cases_once_each():
    assert len(set(FULL)) == len(FULL)
    rows = [(1, 64), (1, 16384), *((n, 4096) for n in (1, 2, 4, 8, 16, 512, 4096))]
    rows += [(8192, 768), (2048, 5120), (2048, 8192), (64, 197, 768)]
    for op in ("rms_norm", "layer_norm"):
        for direction in ("forward", "forward+backward"):
            for dtype in ("float32", "bfloat16"):
                shapes = {case.shape for case in having(op=op, direction=direction, dtype=dtype)}
                assert set(rows) <= shapes
                assert {shape[-1] for shape in shapes} >= {1000, 1025, 333}
    for op in ("batch_norm_training", "batch_norm_inference"):
        for direction in ("forward", "forward+backward"):
            planar = {c.shape for c in having(op=op, direction=direction, channels_last=False)}
            assert {(128, 512), (4096, 1024)} < planar
            images = {c.shape for c in having(op=op, direction=direction, channels_last=True)}
            assert images == {(32, 64, 56, 56), (16, 256, 28, 28), (8, 2048, 7, 7), (64, 32, 31, 31)}
            assert images < planar


def test_backward_alone_is_for_large_row_norms():
    alone = having(direction="backward")
    assert alone
    assert all(case.is_row_norm and case.is_large for case in alone)


def test_the_quick_run_is_a_part_of_the_full_one():
    assert set(cases.quick()) < set(FULL)
    assert {case.op for case in cases.quick()} == set(cases.OPS)
    assert 0 < len(cases.quick()) < len(FULL) / 5


def test_choices_narrow():
    (only,) = cases.quick(["rms_norm"], ["float16"], ["backward"])[1:]
    assert only == Case("rms_norm", (512, 4096), "backward", "float16")


def test_shapes_go_with_the_operators_they_are_meant_for():
    def ops(shape, *given):
        return {case.op for case in cases.chosen([shape], *given)}

    assert ops((3, 7)) == {"rms_norm", "layer_norm"}
    assert ops((3, 7, 5, 5)) == ops((128, 512)) == {"batch_norm_training", "batch_norm_inference"}
    assert ops((3, 7), ["rms_norm", "batch_norm_training"]) == {"rms_norm"}
    assert ops((3, 7, 5, 5), ["rms_norm"]) == {"rms_norm"}
    assert ops((1, 7), ["batch_norm_training"]) == set()  # one value per channel has no variance
    assert ops((2,) * 6, ["batch_norm_training"]) == set()


def test_sizes():
    case = Case("batch_norm_training", (4, 6, 5, 5), "forward", "bfloat16")
    assert (case.features, case.sharing, case.summed, case.tensor_bytes) == (6, 100, 100, 1200)
    case = Case("layer_norm", (4, 6, 5), "forward", "float64")
    assert (case.features, case.sharing, case.summed, case.tensor_bytes) == (5, 5, 24, 960)


def test_shapes_are_read():
    assert cases.parse_shape("512x4096") == ((512, 4096),)
    assert cases.parse_shape("llm") == cases.GROUPS["llm"]


@pytest.mark.parametrize("text", ["512", "512x", "0x4", "-1x4", "axb", "LLM", "", "4 x 4", "٣x4"])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match=r"must be sizes such as 512x4096, or one of single, decode, .* got"):
        cases.parse_shape(text)
