"""Draws the pictures of docs/kernels.md: `python docs/draw_kernels.py` writes docs/pictures."""

from pathlib import Path

from drawing import FEATURES, PROTOTYPES, REGISTERS, WRITTEN, Picture
from kernel_parts import block, feature_map, outputs, pixel_row, program, prototypes

FOLDER = Path(__file__).parent / "pictures"


def contrast() -> Picture:
    """Forward of the contrast."""
    picture = Picture("Contrast: features are read once, logits never leave the registers")
    feature_map(picture)
    pixel_row(picture, "labels, weights")
    program(picture)
    block(picture, 346, 88, 88, 84, "z: BLOCK_P x C'", 8, 6)
    block(picture, 458, 88, 18, 84, "|f|²", 1, 6)
    block(picture, 500, 88, 88, 84, "mass: w t cw", 8, 6)
    prototypes(picture)
    picture.arrow((182, 131), (344, 131))
    picture.arrow((182, 242), (300, 242), (300, 200), (544, 200), (544, 191))
    picture.arrow((612, 135), (664, 135))
    outputs(picture, "loss", "weight", "lse")
    return picture


def contrast_backward() -> Picture:
    """Backward of the contrast."""
    picture = Picture("Gradient of the contrast: logits again, then one trip over the channels")
    feature_map(picture)
    pixel_row(picture, "labels, upstream, lse")
    program(picture)
    block(picture, 342, 88, 84, 84, "z, recomputed", 8, 6)
    block(picture, 512, 88, 84, 84, "slope dL/dz", 8, 6)
    picture.arrow((428, 130), (508, 130))
    picture.note(468, 122, "softmax - t")
    prototypes(picture, up=384)
    picture.arrow((182, 131), (340, 131))
    picture.arrow((182, 242), (300, 242), (300, 200), (554, 200), (554, 191))
    picture.arrow((612, 118), (658, 118))
    picture.box(662, 76, 120, 72, WRITTEN)
    for part in range(4):
        picture.box(706, 76 + 18 * part, 28, 18, WRITTEN, dark=part == 1, rounded=0)
    picture.note(722, 164, "gradient, as the features lie")
    picture.arrow((612, 196), (658, 196))
    picture.box(662, 184, 120, 26, WRITTEN, dashed=True)
    picture.words(722, 201, "slot (C, D)", size=12, anchor="middle")
    picture.note(722, 226, "if prototypes want one")
    return picture


def class_sums() -> Picture:
    """Class sums and the two stages of every sum over pixels."""
    picture = Picture("Class sums: every program owns a slot, and slots are added in a fixed order")
    paints = 4
    for span in range(paints):
        y = 66 + 46 * span
        picture.box(50, y, 200, 34, FEATURES)
        picture.grid(50, y, 200, 34, 4, 1)
        picture.box(50, y, 50, 34, FEATURES, dark=True, rounded=0)
        picture.arrow((250, y + 17), (306, y + 17))
        picture.box(310, y, 150, 34, REGISTERS, dashed=True)
        picture.words(385, y + 21, "one-hotᵀ · tile, added", size=12, anchor="middle")
        picture.arrow((460, y + 17), (516, y + 17))
        picture.box(520, y, 84, 34, WRITTEN)
        picture.words(562, y + 21, f"slot {span}", size=12, anchor="middle")
        picture.arrow((604, y + 17), (644, y + 17), (644, 148), (676, 148))
    picture.note(150, 58, "SPAN pixels, in tiles of BLOCK_P")
    picture.note(385, 58, "one program per span")
    picture.note(562, 58, "(C, D) each")
    picture.box(680, 122, 112, 52, WRITTEN, dark=True)
    picture.words(736, 144, "sums (C, D)", size=12, anchor="middle")
    picture.words(736, 162, "slot 0 + 1 + ...", size=11, anchor="middle")
    picture.note(164, 262, "the length of a span depends on the shape alone")
    picture.note(562, 262, "no atomics: same bits every time")
    return picture


def class_sums_backward() -> Picture:
    """Gradient of class sums."""
    picture = Picture("Gradient of class sums: a row per label; features only if normalised")
    pixel_row(picture, "labels, weights", y=92)
    picture.box(50, 166, 220, 70, FEATURES, dashed=True)
    picture.box(138, 166, 44, 70, FEATURES, dark=True, rounded=0)
    picture.note(160, 254, "features, read twice, if normalised")
    program(picture)
    block(picture, 346, 88, 84, 84, "member w t: P x C'", 8, 6)
    block(picture, 492, 88, 84, 84, "pulled: P x BLOCK_D", 8, 6)
    picture.arrow((432, 130), (488, 130))
    picture.note(460, 122, "product")
    picture.box(322, 238, 290, 22, PROTOTYPES)
    picture.words(467, 253, "upstream slopes (C, D)", size=12, anchor="middle")
    picture.arrow((534, 238), (534, 216))
    picture.arrow((182, 102), (344, 102))
    picture.arrow((182, 200), (320, 200))
    picture.arrow((612, 125), (658, 125))
    picture.box(662, 76, 120, 98, WRITTEN)
    for part in range(4):
        picture.box(706, 76 + 24.5 * part, 28, 24.5, WRITTEN, dark=part == 1, rounded=0)
    picture.note(722, 190, "gradient, as the features lie")
    return picture


def transfer() -> Picture:
    """Label transfer."""
    picture = Picture("Label transfer: the nearest prototype, kept above a threshold")
    feature_map(picture)
    program(picture)
    block(picture, 346, 88, 84, 84, "z: BLOCK_P x C'", 8, 6)
    block(picture, 484, 88, 18, 84, "max", 1, 6)
    block(picture, 526, 88, 18, 84, "sum", 1, 6)
    block(picture, 568, 88, 18, 84, "first", 1, 6)
    picture.arrow((432, 130), (480, 130))
    prototypes(picture)
    picture.arrow((182, 131), (344, 131))
    picture.arrow((612, 135), (664, 135))
    outputs(picture, "label", "confidence", x=690)
    picture.note(160, 246, "no labels: no class is asked for")
    picture.note(722, 254, "below threshold: ignore_index")
    return picture


def target_pass() -> Picture:
    """The target's part of a step."""
    picture = Picture("The target pass: one tile, two products, labels, loss and class sums")
    feature_map(picture)
    program(picture)
    block(picture, 346, 88, 60, 84, "z, calibrated", 6, 6)
    block(picture, 424, 88, 18, 84, "label", 1, 6)
    block(picture, 470, 88, 60, 84, "z, own", 6, 6)
    block(picture, 548, 88, 18, 84, "loss", 1, 6)
    picture.arrow((408, 130), (422, 130))
    picture.arrow((532, 130), (546, 130))
    picture.box(322, 238, 130, 22, PROTOTYPES)
    picture.words(387, 253, "moved by the bias", size=12, anchor="middle")
    picture.box(470, 238, 142, 22, PROTOTYPES)
    picture.words(541, 253, "as they are", size=12, anchor="middle")
    picture.arrow((376, 238), (376, 196))
    picture.arrow((500, 238), (500, 196))
    picture.arrow((182, 131), (344, 131))
    picture.arrow((612, 108), (658, 108))
    picture.arrow((612, 176), (658, 176))
    picture.box(662, 88, 132, 40, WRITTEN)
    picture.words(728, 104, "labels, measure,", size=12, anchor="middle")
    picture.words(728, 120, "log-sum-exp", size=12, anchor="middle")
    picture.note(728, 80, "per pixel")
    picture.box(662, 156, 132, 40, WRITTEN, dark=True)
    picture.words(728, 172, "sums (C, D), counts,", size=12, anchor="middle")
    picture.words(728, 188, "losses (C,)", size=12, anchor="middle")
    picture.note(728, 212, "one slot per span")
    picture.note(160, 246, "each tile is loaded once for both products")
    return picture


def logits() -> Picture:
    """Logits."""
    picture = Picture("Logits: the tile of the contrast, written instead of reduced")
    feature_map(picture)
    program(picture)
    block(picture, 372, 88, 96, 84, "z: BLOCK_P x C'", 8, 6)
    block(picture, 520, 88, 18, 84, "|f|²", 1, 6)
    prototypes(picture, up=420)
    picture.arrow((182, 131), (370, 131))
    picture.arrow((612, 125), (658, 125))
    picture.box(662, 92, 132, 66, WRITTEN)
    picture.grid(662, 92, 132, 66, 1, 5)
    picture.box(708, 92, 28, 66, WRITTEN, dark=True, rounded=0)
    picture.grid(708, 92, 28, 66, 1, 5)
    picture.note(728, 84, "P")
    picture.note(654, 152, "C", anchor="end")
    picture.note(728, 176, "logits (C, P), float32")
    picture.note(160, 246, "its gradient reads upstream (C, P) instead of labels")
    return picture


def distribution_contrast() -> Picture:
    """Both directions of the contrast with class distributions."""
    picture = Picture("Contrast with distributions: a tile meets means, its squares variances")
    feature_map(picture)
    pixel_row(picture, "labels, weights")
    program(picture)
    block(picture, 346, 88, 66, 84, "f · mean", 6, 6)
    block(picture, 436, 88, 66, 84, "f² · variance", 6, 6)
    block(picture, 526, 88, 66, 84, "z: their sum", 6, 6)
    picture.words(424, 134, "+", size=14, anchor="middle")
    picture.arrow((504, 130), (524, 130))
    picture.box(322, 238, 138, 22, PROTOTYPES)
    picture.words(391, 253, "means (C', D)", size=12, anchor="middle")
    picture.box(474, 238, 138, 22, PROTOTYPES)
    picture.words(543, 253, "variances (C', D)", size=12, anchor="middle")
    picture.arrow((379, 238), (379, 196))
    picture.arrow((486, 238), (486, 196))
    picture.arrow((182, 131), (344, 131))
    picture.arrow((612, 112), (664, 112))
    outputs(picture, "loss", "weight", "lse", height=66)
    picture.box(672, 206, 116, 22, WRITTEN, dashed=True)
    picture.words(730, 221, "two slots (C, D)", size=12, anchor="middle")
    picture.arrow((612, 204), (640, 204), (640, 217), (668, 217))
    picture.note(730, 244, "backward, if rows want one")
    return picture


def halves() -> Picture:
    """Float32 factors in 16-bit products."""
    picture = Picture("Split operands: a float32 factor as two 16-bit halves", height=264)
    picture.box(50, 70, 200, 30, PROTOTYPES)
    picture.words(150, 90, "float32 factor a", size=12, anchor="middle")
    picture.arrow((250, 78), (330, 62))
    picture.arrow((250, 92), (330, 124))
    picture.box(334, 46, 130, 30, PROTOTYPES, dark=True)
    picture.words(399, 66, "upper = 16 bit(a)", size=12, anchor="middle")
    picture.box(334, 110, 170, 30, PROTOTYPES, dark=True)
    picture.words(419, 130, "lower = 16 bit(a - upper)", size=12, anchor="middle")
    picture.box(50, 166, 200, 30, FEATURES, dark=True)
    picture.words(150, 186, "16-bit features f, as they are", size=12, anchor="middle")
    picture.arrow((464, 61), (560, 61), (560, 96))
    picture.arrow((504, 125), (520, 125), (520, 112), (546, 112))
    picture.arrow((250, 181), (562, 181), (562, 130))
    picture.box(550, 98, 220, 30, REGISTERS, dark=True)
    picture.words(660, 118, "f · upper + f · lower, float32", size=12, anchor="middle")
    picture.note(684, 90, "two products of the matrix units, one sum")
    return picture


def upsampled_cross_entropy() -> Picture:
    """Both directions of the cross-entropy of upsampled logits."""
    picture = Picture(
        "Cross-entropy of upsampled logits: two rows of cells at a time, each pixel once"
    )
    picture.box(40, 84, 120, 80, FEATURES)
    picture.box(60, 104, 60, 40, FEATURES, dark=True, rounded=0)
    picture.grid(40, 84, 120, 80, 6, 4)
    picture.note(100, 76, "logits, all classes")
    picture.box(204, 72, 176, 106, REGISTERS, dashed=True, rounded=8)
    picture.words(216, 90, "forward: rows between two", size=12, color=REGISTERS.line, weight=600)
    block(picture, 224, 100, 60, 54, "blend, C", 6, 4)
    block(picture, 330, 100, 18, 54, "loss", 1, 4)
    picture.arrow((120, 124), (222, 124))
    picture.arrow((286, 127), (328, 127))
    picture.box(236, 206, 112, 22, FEATURES, dark=True)
    picture.words(292, 221, "labels", size=12, anchor="middle")
    picture.arrow((292, 206), (292, 180))
    picture.note(100, 186, "two rows, blended in width,")
    picture.note(100, 201, "serve all pixels between")
    picture.box(440, 72, 176, 106, REGISTERS, dashed=True, rounded=8)
    picture.words(452, 90, "backward: the same again", size=12, color=REGISTERS.line, weight=600)
    block(picture, 460, 100, 60, 54, "softmax - label", 6, 4)
    block(picture, 560, 100, 36, 54, "runs", 3, 4)
    picture.arrow((522, 127), (558, 127))
    picture.arrow((598, 127), (662, 127))
    picture.box(666, 84, 120, 80, WRITTEN)
    picture.box(706, 104, 40, 40, WRITTEN, dark=True, rounded=0)
    picture.grid(666, 84, 120, 80, 6, 4)
    picture.note(726, 76, "gradient, each cell once")
    picture.note(
        528, 196, "rows and runs of columns are summed, then those of a cell, in a fixed order"
    )
    return picture


PICTURES = {
    "contrast": contrast,
    "contrast_backward": contrast_backward,
    "class_sums": class_sums,
    "class_sums_backward": class_sums_backward,
    "transfer": transfer,
    "target_pass": target_pass,
    "logits": logits,
    "distribution_contrast": distribution_contrast,
    "upsampled_cross_entropy": upsampled_cross_entropy,
    "halves": halves,
}


def drawn() -> dict[str, str]:
    """Every picture by file name."""
    return {f"{name}.svg": draw().svg() for name, draw in PICTURES.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, svg in drawn().items():
        (FOLDER / name).write_text(svg, "utf-8")
