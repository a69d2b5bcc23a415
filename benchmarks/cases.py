"""What is run: operators on maps, some of which are named after the method that has them."""

from dataclasses import dataclass, replace

from benchmarks.contenders import NUM_CLASSES

IMAGES = 2
PIPA = (16, 32)
"""PiPa's 1 024 anchors, as two maps."""
PAIRS = ("pair contrast", "pair contrast, all")
"""Contrast of every pixel with every other one, by what the sums hold."""
LARGE, SMALL = (128, 256), (24, 48)
"""Height and width of the feature maps: a training crop at stride 4, and the demo's."""
RELEASED, RELEASED_LABELS = (92, 92), (730, 730)
"""Features and labels of BiCL's released trainer, and its logits."""
STRIDE = 4
"""Pixels of labels for one of logits in each direction, elsewhere."""
UPSAMPLED = {"upsampled CE": False, "upsampled CE, corners": True}
"""Cross-entropy of upsampled logits, by `align_corners`; D counts the classes."""


@dataclass(frozen=True)
class Case:
    """One operator on one kind of input.

    Attributes:
        operator: a key of `OPERATORS`.
        gradient: what a gradient is taken to, "none" for values alone.
        channels: D.
        layout: "NCHW" or "channels_last".
        size: height and width of the feature map.
        dtype: of the features; "bfloat16" values are rounded before anything is computed.
        classes: C.
        use: the method with such maps, "" for none; says what is scaled down.
        compiled: whether torch.compile of the plainest alternative takes part.
    """

    operator: str
    gradient: str
    channels: int
    layout: str = "NCHW"
    size: tuple[int, int] = LARGE
    dtype: str = "float32"
    classes: int = NUM_CLASSES
    use: str = ""
    compiled: bool = False

    @property
    def label_size(self) -> tuple[int, int]:
        """Height and width of the labels of upsampled logits, or of the released step."""
        if self.size == RELEASED:
            return RELEASED_LABELS
        return STRIDE * self.size[0], STRIDE * self.size[1]

    @property
    def finely_labelled(self) -> bool:
        """Whether labels are finer than features."""
        return self.operator in UPSAMPLED or self.operator == "released step"

    def __str__(self) -> str:
        height, width = self.size
        named = f"{self.use}: " if self.use else ""
        where = f"D={self.channels}, {height}x{width}, {self.layout}, {self.dtype}"
        return f"{named}{self.operator}, gradient: {self.gradient}, {where}"


def resized(case: Case, size: tuple[int, int] | None) -> Case:
    """The case on a map of another size, or itself."""
    return case if size is None else replace(case, size=size)


BOTH, PROTOTYPES = "both features", "features + prototypes"
COMPILED = [
    Case(operator, gradient, channels, dtype=dtype, compiled=True)
    for operator, gradient, channels, dtype in [
        ("contrast", "features", 64, "float32"),
        ("contrast", "features", 256, "float32"),
        ("contrast", "features", 64, "bfloat16"),
        ("contrast", PROTOTYPES, 64, "float32"),
        ("class_prototypes", "none", 64, "float32"),
        ("transfer_labels", "none", 64, "float32"),
        ("transfer_labels", "none", 64, "bfloat16"),
        ("bidirectional step", BOTH, 64, "float32"),
        ("upsampled CE", "features", NUM_CLASSES, "float32"),
    ]
]
PLAIN = [
    Case("contrast", "features, loss x 0.5", 64),
    Case("contrast", PROTOTYPES, 256),
    Case("contrast", PROTOTYPES, 64, dtype="bfloat16"),
    Case("contrast, libraries", PROTOTYPES, 64),
    Case("class_prototypes", "none", 64, dtype="bfloat16"),
    Case("class_prototypes", "none", 256),
    Case("class_prototypes", "features", 64),
    Case("class_prototypes", "features", 256),
    Case("transfer_labels", "none", 256),
    Case("bidirectional step", BOTH, 256),
    *(Case("BiCL step", BOTH, channels) for channels in (64, 256)),
    Case("upsampled CE, corners", "features", NUM_CLASSES),
    Case("upsampled CE", "features", NUM_CLASSES, dtype="bfloat16"),
]
CHANNELS_LAST = [
    Case("contrast", "features", 64, "channels_last", compiled=True),
    Case("contrast", "features", 256, "channels_last"),
    Case("class_prototypes", "none", 64, "channels_last"),
    Case("class_prototypes", "none", 256, "channels_last"),
    Case("transfer_labels", "none", 64, "channels_last"),
    Case("bidirectional step", BOTH, 64, "channels_last"),
    Case("upsampled CE", "features", NUM_CLASSES, "channels_last"),
]
ON_SMALL_MAPS = [
    Case(operator, gradient, 64, size=SMALL)
    for operator, gradient in [
        ("contrast", "features"),
        ("class_prototypes", "none"),
        ("transfer_labels", "none"),
        ("bidirectional step", BOTH),
    ]
]
BY_USE = [
    *(
        Case(operator, gradient, 76, size=RELEASED, use="bicl", compiled=compiled)
        for operator, gradient, compiled in [
            ("contrast", "features", True),
            ("transfer_labels", "none", False),
            ("bidirectional step", BOTH, False),
            ("bidirectional step, by class", BOTH, False),
            ("released step", BOTH, False),
            ("BiCL step", BOTH, False),
        ]
    ),
    *(Case(name, "features", NUM_CLASSES, size=RELEASED, use="bicl") for name in UPSAMPLED),
    Case("contrast", "features", 2048, size=(64, 64), use="spcl"),
    Case("class_prototypes", "none", 2048, size=(64, 64), use="spcl"),
    Case("contrast", "features", 512, size=(80, 80), use="sepico"),
    Case("class_prototypes", "none", 512, size=(80, 80), use="sepico"),
    Case("distribution contrast", "features", 512, size=(80, 80), use="sepico"),
    Case("class_statistics", "none", 512, size=(80, 80), use="sepico"),
    Case("contrast", "features", 512, size=(32, 64), use="confeti"),
    *(Case(name, "features", 256, size=PIPA, use="pipa") for name in PAIRS),
    Case("contrast, soft", "features", 256, size=(128, 112), use="proda, a quarter"),
    Case(
        "contrast", "features", 720, size=(128, 64), classes=190, use="protoseg, a 16th"
    ),
]  # fmt: skip
CASES = [*COMPILED, *PLAIN, *CHANNELS_LAST, *ON_SMALL_MAPS, *BY_USE]
