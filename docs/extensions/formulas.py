"""Formulas as pictures in the page: drawn when the site is built, no script and no font to load."""

from functools import cache
from html import escape

import ziamath
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

SIZE = 16.0
"""Of the letters, in the units of the drawing; the page scales them to its own."""
MARGIN = 1.0
"""Around a formula, so that no stroke is cut."""

# The glyphs of each formula stand in it: shared ones would be looked for by names that repeat.
ziamath.config.svg2 = False


@cache
def drawn(latex: str, inline: bool) -> str:
    """An SVG that is as large as the text around it and has its colour."""
    formula = ziamath.Latex(latex, size=SIZE, color="currentColor", inline=inline, margin=MARGIN)
    width, height = (side + 2 * MARGIN for side in formula.getsize())
    place = f"width:{width / SIZE:.3f}em;height:{height / SIZE:.3f}em"
    low = (formula.getyofst() - MARGIN) / SIZE
    place += f";vertical-align:{low:.3f}em" if inline else ""
    said = f'<svg role="img" aria-label="{escape(" ".join(latex.split()))}" style="{place}"'
    return formula.svg().replace("<svg", said, 1)


def in_line(page: HTML5Translator, node: nodes.math) -> None:
    page.body.append(f'<span class="formula">{drawn(node.astext().strip("`"), True)}</span>')
    raise nodes.SkipNode


def in_block(page: HTML5Translator, node: nodes.math_block) -> None:
    page.body.append(f'<div class="formula">{drawn(node.astext(), False)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("drawn", (in_line, None), (in_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
