"""What native does not serve is refused in one sentence, and never served by another."""

from pathlib import Path

import pytest
import torch

import protocontrast as pc
from protocontrast.kernels import compilers
from protocontrast.native import OPERATORS, build, library
from protocontrast.ops.backend import choose
from tests.differentiable import scene
from tests.sentences import assert_raises

FEATURES, LABELS, PROTOTYPES = scene(torch.float32)
HINT = 'Hint: backend="auto" takes the fastest implementation there is.'
REBUILD = "python -m protocontrast.native compiles it, given a C compiler."


def contrast(**settings: object) -> torch.Tensor:
    return pc.pixel_prototype_contrast(FEATURES, LABELS, PROTOTYPES, backend="native", **settings)


def test_an_operator_that_is_not_written_in_c() -> None:
    text = f"expected backend for which distribution_contrast is implemented, got 'native'. {HINT}"
    assert "distribution_contrast" not in OPERATORS
    assert_raises(ValueError, text, lambda: choose("native", "distribution_contrast", FEATURES))


def test_distances() -> None:
    text = (
        "transfer_labels: expected similarity to be 'cosine' or 'dot' with "
        f"backend=\"native\", got 'euclidean'. {HINT}"
    )
    settings = {"similarity": "euclidean", "measure": "similarity", "threshold": -1.0}
    assert_raises(
        ValueError,
        text,
        lambda: pc.transfer_labels(FEATURES, PROTOTYPES, backend="native", **settings),
    )


def test_another_device() -> None:
    class OnGpu:
        device = torch.device("cuda", 0)

    text = (
        "expected backend that runs where the features are, got 'native' for features on cuda:0. "
        f"{HINT}"
    )
    assert_raises(ValueError, text, lambda: choose("native", "contrast", OnGpu()))  # type: ignore[arg-type]


def test_a_library_that_is_not_there(nowhere: Path) -> None:
    text = (
        "pixel_prototype_contrast: expected backend that is compiled, got 'native'. "
        f'Hint: {REBUILD} Or take backend="auto".'
    )
    assert_raises(ValueError, text, contrast)
    assert pc.backends()["native"] == f"not usable: expected a library that is compiled. {REBUILD}"


def test_a_library_of_another_machine(nowhere: Path) -> None:
    nowhere.write_bytes(b"\x7fELF of another kind")
    expected = f"not usable: expected a library that was compiled for this machine. {REBUILD}"
    assert pc.backends()["native"] == expected


def test_a_library_of_other_sources(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editable install after a pull: the old library would read another struct."""
    nowhere.symlink_to(BUILT)
    monkeypatch.setattr(build, "digest", lambda: "of what was pulled")
    expected = f"not usable: expected a library that was compiled from these sources. {REBUILD}"
    assert pc.backends()["native"] == expected


BUILT = library.PATH


def test_backends_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = pc.backends()
    assert list(found) == ["triton", "native", "eager", "naive"]
    assert found["native"] == f"usable: {library.named()}"
    assert found["eager"] == found["naive"] == "usable"
    monkeypatch.setattr("protocontrast.kernels.AVAILABLE", False)
    assert pc.backends()["triton"] == "not usable: triton is not installed"
    monkeypatch.setattr("protocontrast.kernels.AVAILABLE", True)
    monkeypatch.setattr("protocontrast.kernels.INTERPRETED", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pc.backends()["triton"] == "not usable: there is no GPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(compilers, "capability", lambda index: (9, 0))
    monkeypatch.setattr(compilers, "RELEASE", (3, 7, 1))
    assert pc.backends()["triton"] == "usable"
    monkeypatch.setattr(compilers, "RELEASE", (3, 5, 0))
    assert pc.backends()["triton"].startswith("not usable: expected one that triton 3.6 or later")
