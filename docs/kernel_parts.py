"""What the pictures of the kernels have in common."""

from drawing import FEATURES, PROTOTYPES, REGISTERS, WRITTEN, Picture


def feature_map(picture: Picture, *, x: float = 50, y: float = 82, looked_at: int = 1) -> None:
    """One image's features, a tile of pixels in it, and one block of its channels."""
    picture.words(x + 110, y - 22, "features of one image", size=12, anchor="middle")
    picture.box(x, y, 220, 132, FEATURES)
    for block in range(4):
        picture.box(x + 88, y + 33 * block, 44, 33, FEATURES, dark=block == looked_at, rounded=0)
    picture.note(x + 110, y - 7, "BLOCK_P pixels")
    picture.note(x + 82, y + 33 * looked_at + 20, "BLOCK_D", anchor="end")
    picture.note(x - 8, y + 70, "D", anchor="end")
    picture.note(x + 214, y + 126, "P", anchor="end")


def pixel_row(picture: Picture, name: str, *, x: float = 50, y: float = 232) -> None:
    """What is read once per pixel."""
    picture.box(x, y, 220, 20, FEATURES)
    picture.box(x + 88, y, 44, 20, FEATURES, dark=True, rounded=0)
    picture.note(x + 110, y + 36, name)


def program(picture: Picture, *, x: float = 322, w: float = 290, top: float = 56) -> None:
    """The panel of what one program holds."""
    picture.box(x, top, w, 158, REGISTERS, dashed=True, rounded=8)
    picture.words(x + 12, top + 20, "one program", size=12, color=REGISTERS.line, weight=600)


def block(
    picture: Picture, x: float, y: float, w: float, h: float, name: str, across: int, down: int
) -> None:  # fmt: skip
    """A block in registers with its name below."""
    picture.box(x, y, w, h, REGISTERS, dark=True)
    picture.grid(x, y, w, h, across, down)
    picture.note(x + w / 2, y + h + 15, name)


def prototypes(picture: Picture, *, x: float = 322, w: float = 290, up: float = 390) -> None:
    """The prepared matrix below the program."""
    picture.box(x, 238, w, 22, PROTOTYPES)
    picture.words(x + w / 2, 253, "matrix (C', D), table of scales", size=12, anchor="middle")
    picture.arrow((up, 238), (up, 216))


def outputs(picture: Picture, *names: str, x: float = 672, height: float = 110) -> None:
    """Columns that are written per pixel."""
    for i, name in enumerate(names):
        picture.box(x + 46 * i, 84, 24, height, WRITTEN, dark=True)
        picture.grid(x + 46 * i, 84, 24, height, 1, 6)
        picture.note(x + 46 * i + 12, 84 + height + 15 + 14 * (i % 2), name)
