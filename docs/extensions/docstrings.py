"""Docstrings of the library as pages: formulas stay as typed, names and documents lead on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

SECTION = re.compile(r"^[A-Z][a-z]+:$")
LETTER = re.compile(r"^(\s+\w+: )([A-Z]\.)")
DOCUMENT = re.compile(r"docs/(\w+)\.md")


def prepared(lines: list[str]) -> list[str]:
    """The same in reStructuredText."""
    found: list[str] = []
    described = False
    for line in lines:
        described = described or bool(SECTION.match(line))
        # An indented paragraph above the sections is a formula.
        if not described and line.startswith("    ") and found and not found[-1]:
            found += ["::", ""]
        # Without the backslash "C." begins a list.
        line = LETTER.sub(r"\1\\\2", line)
        found.append(DOCUMENT.sub(r":doc:`docs/\1.md </\1>`", line))
    return found


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = prepared(lines)


def public_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Where a class of the library is written, a signature says; the page has its public name."""
    if not node.get("reftarget", "").startswith("protocontrast."):
        return None
    name = "protocontrast." + node["reftarget"].rpartition(".")[2]
    if name == node["reftarget"]:
        return None
    return env.domains.python_domain.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], name, node, content
    )


def setup(app: Sphinx) -> dict[str, bool]:
    # Before napoleon, which takes the sections apart.
    app.connect("autodoc-process-docstring", process, priority=100)
    app.connect("missing-reference", public_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
