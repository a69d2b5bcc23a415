"""The method in one object: `BiCL`."""

from protocontrast.bicl.module import BiCL, BiCLOutput

__all__ = ["BiCL", "BiCLOutput"]
