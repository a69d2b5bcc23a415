"""Adds to the build what pyproject.toml cannot say: the C library, where there is a compiler."""

import importlib.util
import platform
import sys
from pathlib import Path

from setuptools import Command, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.dist import Distribution

ROOM = Path("protocontrast", "native")


def recipe():
    """`protocontrast/native/build.py`, without the package around it, which needs torch."""
    place = Path(__file__).parent / ROOM / "build.py"
    spec = importlib.util.spec_from_file_location("recipe", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class build_native(Command):
    """Compiles the library; without a compiler it says so and the package goes without."""

    description = "compile the C library"
    user_options = ()

    def initialize_options(self):
        self.build_lib = None
        self.editable_mode = False

    def finalize_options(self):
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def _output(self):
        folder = Path() if self.editable_mode else Path(self.build_lib)
        return folder / ROOM / recipe().LIBRARY

    def run(self):
        output = self._output()
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            recipe().build(output)
        except (OSError, RuntimeError) as error:
            print(f'protocontrast: installing without backend="native": {error}', file=sys.stderr)

    def get_source_files(self):
        return [str(path) for path in sorted((ROOM / "sources").iterdir())]

    def get_outputs(self):
        return [str(output)] if (output := self._output()).is_file() else []

    def get_output_mapping(self):
        return {}


class Native(Distribution):
    """A distribution that has something to compile, where there is a compiler for it."""

    def has_ext_modules(self):
        return bool(recipe().compiler())


class wheel_of_platform(bdist_wheel):
    """One wheel per platform: the library meets neither Python's nor torch's own interfaces."""

    def get_tag(self):
        _, _, system = super().get_tag()
        # It is compiled for the processor at hand, even where Python is built for two.
        return "py3", "none", system.replace("universal2", platform.machine())


build.sub_commands = [*build.sub_commands, ("build_native", None)]
setup(
    cmdclass={"build_native": build_native, "bdist_wheel": wheel_of_platform},
    distclass=Native,
)
