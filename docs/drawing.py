"""What the pictures of the documents are drawn with: boxes, words and arrows as SVG."""

from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 820, 320
INK, MUTED, PAPER = "#1f2328", "#656d76", "#ffffff"


class Paint(NamedTuple):
    """Fill, stroke and a darker fill for what is looked at."""

    fill: str
    line: str
    dark: str


FEATURES = Paint("#dceafa", "#2f6db5", "#7db1e8")
PROTOTYPES = Paint("#fdebd5", "#b8661b", "#f5bf85")
REGISTERS = Paint("#e2f4e4", "#2c7a3d", "#8fd19e")
WRITTEN = Paint("#eee4f8", "#7443a6", "#c4a3e6")
LEGEND = (
    (FEATURES, "read from memory"),
    (PROTOTYPES, "prepared prototypes, in cache"),
    (REGISTERS, "in registers"),
    (WRITTEN, "written"),
)


class Picture:
    """An SVG that grows by boxes, words and arrows."""

    def __init__(
        self, title: str, height: int = HEIGHT, legend: tuple[tuple[Paint, str], ...] = LEGEND
    ) -> None:
        self.title, self.height, self.legend = title, height, legend
        self.parts: list[str] = []
        self.words(24, 30, title, size=16, weight=600)

    def box(
        self, x: float, y: float, w: float, h: float, paint: Paint, *, dark: bool = False,
        dashed: bool = False, rounded: int = 3,
    ) -> None:  # fmt: skip
        """A filled rectangle."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        fill = paint.dark if dark else paint.fill
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{rounded}" '
            f'fill="{fill}" stroke="{paint.line}" stroke-width="1.2"{dash}/>'
        )

    def words(
        self, x: float, y: float, text: str, *, size: int = 13, anchor: str = "start",
        color: str = INK, weight: int = 400,
    ) -> None:  # fmt: skip
        """A line of text; `y` is its baseline."""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" '
            f'fill="{color}" font-weight="{weight}">{escape(text)}</text>'
        )

    def note(self, x: float, y: float, text: str, anchor: str = "middle") -> None:
        """A small grey line."""
        self.words(x, y, text, size=11, anchor=anchor, color=MUTED)

    def dot(self, x: float, y: float, paint: Paint) -> None:
        """A filled circle, of which (x, y) is the middle."""
        self.parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="4.5" fill="{paint.dark}" stroke="{paint.line}"/>'
        )

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line through the points with a head at the last."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{INK}" stroke-width="1.4" '
            'marker-end="url(#head)"/>'
        )

    def grid(self, x: float, y: float, w: float, h: float, across: int, down: int) -> None:
        """Thin lines inside a box."""
        lines = [(x + w * i / across, y, x + w * i / across, y + h) for i in range(1, across)]
        lines += [(x, y + h * i / down, x + w, y + h * i / down) for i in range(1, down)]
        self.parts += [
            f'<line x1="{a:g}" y1="{b:g}" x2="{c:g}" y2="{d:g}" stroke="{MUTED}" '
            'stroke-width="0.4"/>'
            for a, b, c, d in lines
        ]

    def svg(self) -> str:
        """The whole file."""
        x = 24
        for paint, name in self.legend:
            self.box(x, self.height - 28, 12, 12, paint, dark=True)
            self.words(x + 18, self.height - 18, name, size=11, color=MUTED)
            x += 44 + 6 * len(name)
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" '
            f'width="{WIDTH}" height="{self.height}" role="img" '
            'font-family="Helvetica, Arial, sans-serif">'
        )
        marker = (
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
            f'markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z" fill="{INK}"/></marker></defs>'
        )
        paper = f'<rect width="{WIDTH}" height="{self.height}" rx="8" fill="{PAPER}"/>'
        body = [head, f"<title>{escape(self.title)}</title>", marker, paper, *self.parts, "</svg>"]
        return "\n".join(body) + "\n"
