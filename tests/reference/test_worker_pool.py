"""One function over many files: the same results in order, here or in other processes."""

import os
from functools import partial

import pytest
from reference.data.worker_pool import over_files


def square(number: int) -> int:
    return number * number


def refuse_seven(number: int) -> int:
    if number == 7:
        raise ValueError("seven")
    return number


def process(marker: str, number: int) -> int:
    return os.getpid()


def test_results_come_in_order() -> None:
    assert list(over_files(square, 20, "Squaring", workers=0, progress=False)) == [
        number * number for number in range(20)
    ]


def test_workers_give_the_same_from_other_processes() -> None:
    results = list(over_files(square, 20, "Squaring", workers=1, progress=False))
    assert results == [number * number for number in range(20)]
    processes = set(over_files(partial(process, "x"), 20, "Asking", workers=1, progress=False))
    assert os.getpid() not in processes


def test_few_files_need_no_worker() -> None:
    assert set(over_files(partial(process, "x"), 3, "Asking", workers=2, progress=False)) == {
        os.getpid()
    }


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_worker_arrives(workers: int) -> None:
    with pytest.raises(ValueError, match=r"^seven$"):
        list(over_files(refuse_seven, 20, "Refusing", workers=workers, progress=False))


def test_a_negative_number_of_workers_is_refused() -> None:
    with pytest.raises(ValueError) as caught:
        list(over_files(square, 3, "Squaring", workers=-1, progress=False))
    assert str(caught.value) == "over_files: expected workers of at least 0, got -1."
