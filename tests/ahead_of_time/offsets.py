"""Products that may pass 2^31 elements, found in triton's intermediate language (TTIR).

A map of many images has more elements than 32 bits count, so the image index and every stride must
be multiplied in 64 bits.
"""

import re
from collections.abc import Iterator

DEFINITION = re.compile(r"^\s*(%[\w#]+)(?::\d+)? = (?:\")?([\w.]+)(?:\")?\s*(.*)$")
VALUE = re.compile(r"%[\w#]+")
NEAR = "given|prepared|threshold|stride_s|most"
FAR = re.compile(rf"%(?!arg|{NEAR})[a-z]\w*(?:\.\w+)*")
"""Arguments that a far offset is made of: strides, pixels, sizes; those of prototypes, thresholds
and sums stay small. What stands in a tuple bears its name, followed by a number or a field."""
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
