"""`benchmarks.tune` without a GPU: candidates, rows as the table spells them, one line."""

import pytest
import torch

from benchmarks import tune
from benchmarks.tune import Job
from protocontrast.kernels import configs
from protocontrast.kernels.configs import Config, Row

JOBS = tune.jobs(tune.parser().parse_args([]))
TILE = Config(128, 64, 4, 3)


def test_jobs_cover_the_table() -> None:
    assert {job.kernel for job in JOBS} == {*configs.KERNELS, *configs.LEFT}
    assert {job.width for job in JOBS} == {2, 4}
    assert {job.classes for job in JOBS} == {19, 150}


@pytest.mark.parametrize("job", JOBS, ids=str)
def test_candidates_are_configurations_that_may_fit(job: Job) -> None:
    found = tune.candidates(job)
    assert len(found) == len(set(found)) >= 8
    for config in found:
        assert configs.LARGEST_TILE % config.block_p == 0
        assert config.block_d <= configs.power_of_two(job.channels)
        assert config.block_p * configs.power_of_two(job.classes) <= tune.LARGEST
        assert config.block_p * config.block_d <= tune.LARGEST


def test_narrow_features_have_no_wide_tiles() -> None:
    assert {c.block_d for c in tune.candidates(Job("contrast", "float32", 20, 19))} == {16, 32}


def test_a_row_is_printed_as_the_table_has_it() -> None:
    row = tune.row_for(Job("contrast", "bfloat16", 256, 19), "sm90", TILE)
    line = tune.written(row)
    assert (
        line == 'Row(("sm90",), ("contrast",), (2,), 256, 32, Config(128, 64, 4, 3, 0, \'ieee\')),'
    )
    assert eval(line, {"Row": Row, "Config": Config}) == (row,)


def test_a_row_goes_before_the_table_and_leaves_again() -> None:
    config = Config(16, 128, 8, 4)
    job = Job("transfer", "float32", 256, 19)
    before = configs.configuration("transfer", "sm90", 4, 256, 19)
    with pytest.raises(KeyError), tune.using(tune.row_for(job, "sm90", config)):
        assert configs.configuration("transfer", "sm90", 4, 256, 19) == config
        assert configs.configuration("transfer", "sm90", 4, 257, 19) != config
        assert configs.configuration("transfer", "sm80", 4, 256, 19) != config
        raise KeyError
    assert configs.configuration("transfer", "sm90", 4, 256, 19) == before


def test_a_row_of_what_reads_logits_leaves_the_others_in_the_table() -> None:
    """Without both rows no contrast leaves logits; other kernels are tuned where none does."""
    job = Job("slope_sums", "bfloat16", 720, 19)
    size = "sm90", 2, 720, 19
    for kernel in configs.LEFT:
        own = configs.configuration(kernel, *size)
        config = tune.like(own, Config(32, 64, 4, 3), kernel)
        assert config == Config(32, 64, 4, 3, own.programs)
        with tune.using(tune.row_for(job._replace(kernel=kernel), "sm90", config)):
            assert configs.configuration(kernel, *size) == config
            assert configs.may_leave_logits(*size)
            # A map without aligned runs leaves none, as before.
            assert not configs.may_leave_logits(*size, keeps=False)
    with tune.using(tune.row_for(job._replace(kernel="contrast"), "sm90", TILE)):
        assert not configs.may_leave_logits(*size)


@pytest.mark.parametrize(
    ("channels", "classes", "expected"),
    [(720, 19, True), (2048, 19, True), (256, 19, False), (720, 150, False)],
)
def test_what_reads_logits_is_tuned_where_a_contrast_leaves_them(
    channels: int, classes: int, expected: bool
) -> None:
    for kernel in configs.LEFT:
        assert tune.starts(Job(kernel, "bfloat16", channels, classes), "sm90") is expected
        assert not tune.starts(Job(kernel, "bfloat16", channels, classes), "sm80")
    assert tune.starts(Job("contrast", "bfloat16", channels, classes), "sm80")


def test_a_candidate_takes_float32_products_as_the_table_does() -> None:
    own = configs.configuration("contrast", "sm90", 4, 256, 19)
    assert own.exact == "bf16x6"
    assert tune.like(own, TILE, "contrast") == TILE._replace(exact="bf16x6")
    keeping = configs.configuration("contrast", "sm90", 2, 256, 19)
    assert keeping.programs and tune.like(keeping, TILE, "contrast") == TILE


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_one_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert tune.main([]) == 0
    assert capsys.readouterr().out == f"{tune.NO_DEVICE}\n"


@pytest.mark.parametrize("arguments", [["--kernels", "tea"], ["--dtypes", "int8"]])
def test_a_wrong_choice_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        tune.parser().parse_args(arguments)
    assert "invalid choice" in capsys.readouterr().err
