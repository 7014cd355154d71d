"""Stops an installation on an old Python at once, and compiles if `FLOORCAST_COMPILE=1`."""

import os
import sys

from setuptools import setup

if sys.version_info < (3, 11):
    # Old versions of pip download everything first.
    sys.exit("floorcast needs Python 3.11 or newer; this is %d.%d" % sys.version_info[:2])

from configparser import RawConfigParser
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CompileError, LinkError

# Types are checked by the linter, and with the configuration for it.
_OPTIONS = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"]


class CompileModules(build_ext):
    """Compiles the modules that setup.cfg lists, all of them or none.

    Without a compiler the package is what it always is: Python.
    """

    def finalize_options(self):
        self.distribution.ext_modules = self._translate()
        super().finalize_options()

    def _translate(self):
        """The modules in C; an empty list if they cannot be compiled."""
        if self.inplace or self.editable_mode:
            # Compiled files beside the source would hide its changes.
            return self._fall_back("an editable installation runs the source")
        try:
            from mypyc.build import mypycify

            modules = _config["mypyc"]["modules"].split()
            return mypycify(
                _OPTIONS + modules, opt_level="1", debug_level="0", group_name="floorcast"
            )
        except (ImportError, SystemExit) as error:
            return self._fall_back(error)

    def run(self):
        self._remove_compiled()
        try:
            super().run()
        except (BaseError, CompileError, LinkError, OSError) as error:
            self._remove_compiled()
            self.extensions = self._fall_back(error)

    def _remove_compiled(self):
        """Remove what an earlier or a failed build has left: a wheel takes the whole folder."""
        for pattern in ("*.so", "*.pyd"):
            for file in Path(self.build_lib).rglob(pattern):
                file.unlink()

    def _fall_back(self, reason):
        self.warn("nothing is compiled: %s" % reason)
        return []


_config = RawConfigParser()
_config.read(Path(__file__).with_name("setup.cfg"), "utf-8")
if os.environ.get("FLOORCAST_COMPILE") == "1":
    setup(
        cmdclass={"build_ext": CompileModules},
        # Replaced by what is translated: its presence makes the wheel one for a platform.
        ext_modules=[Extension("floorcast__mypyc", [])],
        setup_requires=_config["options.extras_require"]["compile"].split(),
    )
else:
    setup()
