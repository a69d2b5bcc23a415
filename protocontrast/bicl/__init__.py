"""The method in one object: `BiCL`."""

from protocontrast.bicl.module import BiCL
from protocontrast.bicl.output import BiCLOutput

__all__ = ["BiCL", "BiCLOutput"]
