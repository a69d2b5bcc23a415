"""What a release says of itself on an index page, and what a source archive holds.

pyproject.toml names these commands, and setuptools reads this file by its place.
"""

import re
from pathlib import Path

from setuptools.command import egg_info as of_metadata
from setuptools.command import sdist as of_archive

ROOMS = ("protocontrast", "reference", "benchmarks", "tests", "docs", ".github")
FILES = ("Makefile", "constraints.txt", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff")
LEFT_OUT = {"__pycache__"}, {".so", ".new", ".pyc"}
PICTURE = re.compile(r"^!\[[^\]]*\]\((?![a-z]+:)([^)]+)\)\n\n?", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?![a-z]+:|#)([^)]+)\)")


def description(readme: str, address: str, version: str) -> str:
    """README as an index shows it: relative links led to the address, or words without one."""
    if not address:
        return LINK.sub(r"\1", PICTURE.sub("", readme))
    linked = LINK.sub(rf"[\1]({address}/blob/v{version}/\2)", readme)
    return re.sub(r"(!\[[^\]]*\]\()(?![a-z]+:)", rf"\g<1>{address}/raw/v{version}/", linked)


class egg_info(of_metadata.egg_info):
    """Metadata with links that lead somewhere."""

    def run(self) -> None:
        known = self.distribution.metadata
        address = (known.project_urls or {}).get("Repository", "")
        known.long_description = description(known.long_description, address, known.version)
        super().run()


class sdist(of_archive.sdist):
    """Everything that is needed to test what is built."""

    def make_distribution(self) -> None:
        names, endings = LEFT_OUT
        inside = (path for room in ROOMS for path in sorted(Path(room).rglob("*")))
        kept = (p for p in inside if not names & {*p.parts} and p.suffix not in endings)
        self.filelist.extend([str(path) for path in kept if path.is_file()])
        self.filelist.extend([name for name in FILES if Path(name).is_file()])
        self.filelist.sort()
        self.filelist.remove_duplicates()
        super().make_distribution()
