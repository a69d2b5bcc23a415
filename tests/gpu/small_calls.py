"""Every operator once on small shapes, for compute-sanitizer: `python -m tests.gpu.small_calls`."""

import torch

from tests.gpu.scenes import CALLS, gradients, make

# Sizes that fit no tile, one and several channel blocks, and one class block of each width.
SHAPES = [((2, 7, 5, 9), 3), ((1, 76, 13, 11), 19), ((1, 300, 3, 43), 150)]


def main(device: str = "cuda") -> None:
    """Run them in 16 and in 32 bits, both layouts."""
    for shape, classes in SHAPES:
        for dtype in (torch.bfloat16, torch.float32):
            for layout in ("NCHW", "channels_last"):
                given = make(shape, classes, dtype, layout=layout, device=device)
                for call in CALLS.values():
                    gradients(call, given)


if __name__ == "__main__":
    main()
    torch.cuda.synchronize()
