"""Public names in running text and in docstrings lead to their place in the API."""

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

import protocontrast


def lead(app: Sphinx, page: nodes.document) -> None:
    for code in [*page.findall(nodes.literal)]:
        name = code.astext().removeprefix("pc.").removesuffix("()")
        if name not in protocontrast.__all__ or isinstance(code.parent, nodes.reference):
            continue
        link = pending_xref(
            "",
            code.deepcopy(),
            refdomain="py",
            reftype="obj",
            reftarget=f"protocontrast.{name}",
            refdoc=app.env.docname,
            refexplicit=True,
            refwarn=True,
        )
        code.replace_self(link)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", lead)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
