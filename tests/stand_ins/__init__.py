"""Interfaces of packages that docs/extending.md names, as small as its code needs them.

Each module has the names, attributes and call signatures of one package and `modules()`, which
gives them under the names by which the package is imported. Nothing in them is trained well.
"""
