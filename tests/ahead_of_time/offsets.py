"""Products that may pass 2^31 elements, found in triton's intermediate language (TTIR).

A map of many images has more elements than 32 bits count, so the image index and every stride must
be multiplied in 64 bits.
"""

import re
from collections.abc import Iterator

DEFINITION = re.compile(r"^\s*(%[\w#]+)(?::\d+)? = (?:\")?([\w.]+)(?:\")?\s*(.*)$")
VALUE = re.compile(r"%[\w#]+")
FAR = re.compile(r"%(?:stride_[xlwug]\w*|pixels)\b")
"""Arguments that a far offset is made of; strides of prototypes and thresholds stay small."""
KEEPS = {"arith.extsi", "tt.splat", "tt.expand_dims", "tt.broadcast", "arith.divsi"}
"""Operations whose result is as far as what they are given; a remainder starts near again."""


def narrow_products(ttir: str) -> Iterator[str]:
    """Lines that multiply an image index, a stride or the number of pixels in 32 bits."""
    far: set[str] = set()
    for line in ttir.splitlines():
        if line.lstrip().startswith("tt.func"):
            far |= set(FAR.findall(line))
        found = DEFINITION.match(line)
        if found is None:
            continue
        name, operation, rest = found.groups()
        operands = set(VALUE.findall(rest))
        if operation == "tt.get_program_id" or (operation in KEEPS and operands & far):
            far.add(name)
        if operation == "arith.muli" and operands & far:
            if not re.search(r":\s*(?:tensor<[\dx]+x)?i64", rest):
                yield line.strip()
            else:
                far.add(name)
