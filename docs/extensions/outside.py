"""Files beside `docs/`: whole pages that are included, and links.

A link leads to the repository, where its address is known. Else a file is copied into the site, and
a folder is its words alone. A path that is not there stays as it is, which ends the build.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

INCLUDED = re.compile(r"```\{include\} \.\./(\S+)\n```")
LOCAL = re.compile(r"\]\((?![a-z]+:|#)")
LINK = re.compile(r"(?<!!)\[((?:[^\[\]\\]|\\.)*)\]\((?![a-z]+:)([^)\s#]+)\)")


def included(text: str, root: Path) -> str:
    """A page with the page of the root folder that it includes, whose links begin there."""

    def read(found: re.Match[str]) -> str:
        page = (root / found[1]).read_text("utf-8")
        return LOCAL.sub("](../", page).replace("](../docs/", "](")

    return INCLUDED.sub(read, text)


def led_outside(text: str, page: Path, root: Path, address: str) -> str:
    """A page with its links out of `docs/`, and to folders, led to the address."""

    def lead(link: re.Match[str]) -> str:
        words, path = link.groups()
        place = (page.parent / path).resolve()
        page_or_picture = place.is_file() and place.is_relative_to(root / "docs")
        if page_or_picture or not place.exists():
            return link[0]
        if address:
            kind = "tree" if place.is_dir() else "blob"
            return f"[{words}]({address}/{kind}/main/{place.relative_to(root)})"
        return words if place.is_dir() or place.suffix == ".md" else link[0]

    return LINK.sub(lead, text)


def read(app: Sphinx, name: str, content: list[str]) -> None:
    root, page = Path(app.srcdir).parent, Path(app.env.doc2path(name))
    content[0] = led_outside(included(content[0], root), page, root, app.config.repository)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("repository", "", "env")
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
