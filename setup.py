"""Stops an installation on an old Python at once: old versions of pip download everything first."""

import sys

from setuptools import setup

if sys.version_info < (3, 11):
    sys.exit("floorcast needs Python 3.11 or newer; this is %d.%d" % sys.version_info[:2])

setup()
