"""Draws how BiCL works: `python docs/draw_how.py`. Positions are made up; nothing is measured."""

import random
from pathlib import Path

from drawing import FEATURES, MUTED, PROTOTYPES, REGISTERS, WRITTEN, Paint, Picture

PICTURES = Path(__file__).parent / "pictures"
LEGEND = (
    (FEATURES, "features of pixels"),
    (PROTOTYPES, "prototypes, kept over time"),
    (REGISTERS, "labels"),
    (WRITTEN, "losses"),
)
CLASSES = (
    ("road", FEATURES, (150, 196)),
    ("car", WRITTEN, (286, 120)),
    ("tree", REGISTERS, (256, 246)),
)
SHIFT = (58, -48)

Point = tuple[float, float]


def named(picture: Picture, place: tuple[int, int, int, int], paint: Paint, *lines: str) -> None:
    """A box with words in it."""
    x, y, w, h = place
    picture.box(x, y, w, h, paint, rounded=6)
    for line, text in enumerate(lines):
        if line:
            picture.note(x + w / 2, y + 20 + 16 * line, text)
        else:
            picture.words(x + w / 2, y + 22, text, anchor="middle", weight=600)


def step() -> Picture:
    """One step, from features to both losses."""
    picture = Picture("A step of BiCL", height=420, legend=LEGEND)
    named(picture, (24, 70, 150, 52), FEATURES, "source features", "with labels")
    named(picture, (24, 280, 150, 52), FEATURES, "target features", "without labels")
    named(picture, (236, 70, 160, 52), PROTOTYPES, "source prototypes", "class means (M9)")
    named(picture, (236, 175, 160, 52), PROTOTYPES, "moved prototypes", "plus domain bias (M11)")
    named(picture, (458, 175, 160, 52), REGISTERS, "nearest, if near", "label transfer (M6)")
    named(picture, (458, 280, 160, 52), REGISTERS, "target labels", "static ones win (M7)")
    named(picture, (236, 280, 160, 52), PROTOTYPES, "target prototypes", "class means (M9)")
    named(picture, (660, 70, 136, 52), WRITTEN, "target to source", "contrast (M12)")
    named(picture, (660, 280, 136, 52), WRITTEN, "source to target", "contrast (M12)")
    picture.arrow((174, 96), (234, 96))
    picture.arrow((316, 122), (316, 173))
    picture.arrow((396, 201), (456, 201))
    picture.arrow((538, 227), (538, 278))
    picture.arrow((458, 306), (398, 306))
    picture.arrow((174, 306), (234, 306))
    picture.arrow((99, 280), (99, 250), (420, 250), (420, 215), (456, 215))
    picture.arrow((396, 96), (658, 96))
    picture.arrow((316, 332), (316, 362), (728, 362), (728, 334))
    picture.arrow((618, 306), (640, 306), (640, 110), (658, 110))
    picture.arrow((236, 318), (205, 318), (205, 201), (234, 201))
    picture.note(205, 166, "the bias learns", "middle")
    picture.note(520, 88, "target pixels meet source prototypes")
    picture.note(520, 378, "source pixels meet target prototypes")
    return picture


def cloud(centre: Point, number: int, seed: int) -> list[Point]:
    """Points around a centre."""
    drawn = random.Random(seed)
    return [(centre[0] + drawn.gauss(0, 20), centre[1] + drawn.gauss(0, 17)) for _ in range(number)]


def square(picture: Picture, at: Point, paint: Paint, *, dashed: bool = False) -> None:
    picture.box(at[0] - 8, at[1] - 8, 16, 16, paint, dark=not dashed, dashed=dashed)


def moved(at: Point, share: float = 1.0) -> Point:
    return at[0] + share * SHIFT[0], at[1] + share * SHIFT[1]


def nearest(at: Point, places: list[Point]) -> int:
    return min(
        range(len(places)), key=lambda c: (at[0] - places[c][0]) ** 2 + (at[1] - places[c][1]) ** 2
    )


def calibration() -> Picture:
    """Target pixels labelled by source prototypes, without and with the bias."""
    picture = Picture("Labels by the nearest prototype", height=356, legend=())
    for panel, (left, share, title) in enumerate(
        ((0, 0.0, "as the source left them"), (410, 1.0, "moved by the domain bias"))
    ):
        places = [moved(place, share) for _, _, place in CLASSES]
        wrong = total = 0
        for true, (_, _, centre) in enumerate(CLASSES):
            for x, y in cloud(moved(centre), 16, true):
                label = nearest((x, y), places)
                total, wrong = total + 1, wrong + (label != true)
                picture.dot(left + x, y, CLASSES[label][1])
                if label != true:
                    picture.parts.append(
                        f'<path d="M{left + x - 7:g} {y - 7:g}l14 14m0 -14l-14 14" '
                        'stroke="#c0392b" stroke-width="1.6"/>'
                    )
        for (name, paint, place), at in zip(CLASSES, places, strict=True):
            if panel:
                square(picture, (left + place[0], place[1]), paint, dashed=True)
                picture.arrow((left + place[0], place[1]), (left + at[0] - 8, at[1] + 6))
            square(picture, (left + at[0], at[1]), paint)
            picture.note(left + at[0] + 14, at[1] + 18, name, "start")
        picture.words(left + 24, 60, title, size=13)
        picture.note(left + 24, 300, f"{wrong} of {total} pixels get a wrong label", "start")
    told = "Squares: source prototypes. Dots: target pixels in the colour of their label."
    picture.note(24, 338, told + " Crosses: wrong labels.", "start")
    return picture


def pulls() -> Picture:
    """What one term of the contrast does to a pixel."""
    picture = Picture("One pixel under the contrast", height=300, legend=())
    pixel = (250.0, 190.0)
    for (name, paint, _), at in zip(CLASSES, ((120, 100), (390, 110), (400, 250)), strict=True):
        square(picture, at, paint)
        picture.note(at[0], at[1] - 16, name)
    picture.arrow(pixel, (136, 112))
    picture.arrow((385, 115), (262, 183))
    picture.arrow((392, 246), (262, 195))
    picture.dot(*pixel, CLASSES[0][1])
    picture.note(150, 160, "pulled to its class", "end")
    picture.note(300, 136, "pushed", "start")
    picture.words(470, 100, "The loss is the cross-entropy of a softmax over")
    picture.words(470, 120, "the classes. Its logits are cosines to the")
    picture.words(470, 140, "prototypes, divided by the temperature.")
    picture.words(470, 176, "The nearer a wrong prototype is,", color=MUTED)
    picture.words(470, 196, "the harder it pushes.", color=MUTED)
    return picture


def drawn() -> dict[str, str]:
    """Pictures by file name."""
    made = {"step": step(), "calibration": calibration(), "pulls": pulls()}
    return {f"bicl_{name}.svg": picture.svg() for name, picture in made.items()}


if __name__ == "__main__":
    for name, svg in drawn().items():
        (PICTURES / name).write_text(svg, "utf-8")
