"""What the tests of this folder remember of triton's types is what triton makes anew."""

from typing import Any

import pytest
from triton import language
from triton.language import core
from triton.runtime import interpreter


def described(made: Any) -> dict[str, str]:
    return {
        name: repr(field) if name == "handle" else str(field) for name, field in vars(made).items()
    }


def anew(kind: Any, *given: Any) -> Any:
    made = object.__new__(kind)
    kind.__init__.__wrapped__(made, *given)
    return made


@pytest.mark.parametrize("element", [language.float32, core.pointer_type(language.int64)])
@pytest.mark.parametrize("shape", [[4], [2, 8], [core.constexpr(8), 2]])
def test_what_is_remembered_is_what_is_made_anew(element: Any, shape: list[Any]) -> None:
    for _ in range(2):
        kind = core.block_type(element, shape)
        assert described(kind) == described(anew(core.block_type, element, shape))
        for handle in (1, 2):
            for one in (kind, element):
                made = core.tensor(handle, one)
                assert described(made) == described(anew(core.tensor, handle, one))


def test_numbers_have_the_dtype_that_triton_says() -> None:
    pointer = core.pointer_type(language.bfloat16)
    for kind in (language.int1, language.bfloat16, language.float64, pointer):
        of_numpy = interpreter._get_np_dtype(core.block_type(kind, [2]))
        assert of_numpy == interpreter._get_np_dtype(kind)
    assert str(interpreter._get_np_dtype(language.bfloat16)) == "uint16"
    assert str(interpreter._get_np_dtype(pointer)) == "uint64"
