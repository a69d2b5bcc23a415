"""What setuptools does beside its own: compile the C library, where there is a compiler.

pyproject.toml names these commands. setuptools reads this file by its place, before anything is
installed, so it may import nothing of the package.
"""

import platform
import runpy
import sys
from pathlib import Path
from typing import Any, ClassVar

from setuptools import Command
from setuptools.command import bdist_wheel as of_wheel
from setuptools.command import build as of_build

ROOM = Path("protocontrast", "native")


RECIPE: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("build.py")))
"""The names in `build.py`, without the package around it, which needs torch."""


class build(of_build.build):
    """Everything that is built, the C library last."""

    sub_commands: ClassVar = [*of_build.build.sub_commands, ("build_native", None)]


class build_native(Command):
    """Compiles the library; without a compiler it says so and the package goes without."""

    description = "compile the C library"
    user_options: ClassVar[list[tuple[str, str, str]]] = []

    def initialize_options(self) -> None:
        self.build_lib = ""
        self.editable_mode = False

    def finalize_options(self) -> None:
        self.build_lib = self.get_finalized_command("build_py").build_lib

    def _output(self) -> Path:
        folder = Path() if self.editable_mode else Path(self.build_lib)
        return folder / ROOM / RECIPE["LIBRARY"]

    def run(self) -> None:
        output = self._output()
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            RECIPE["build"](output)
        except (OSError, RuntimeError) as error:
            print(f'protocontrast: installing without backend="native": {error}', file=sys.stderr)

    def get_source_files(self) -> list[str]:
        return [str(path) for path in sorted((ROOM / "sources").iterdir())]

    def get_outputs(self) -> list[str]:
        return [str(output)] if (output := self._output()).is_file() else []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class bdist_wheel(of_wheel.bdist_wheel):
    """One wheel per platform: the library meets neither Python's nor torch's own interfaces."""

    def initialize_options(self) -> None:
        super().initialize_options()
        # No extension is listed, and yet there is something to compile, given a compiler.
        self.distribution.has_ext_modules = lambda: bool(RECIPE["compiler"]())

    def get_tag(self) -> tuple[str, str, str]:
        _, _, system = super().get_tag()
        # It is compiled for the processor at hand, even where Python is built for two.
        return "py3", "none", system.replace("universal2", platform.machine())
