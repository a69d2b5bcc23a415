"""A step of `BiCL` whole, where kernels serve it; not among the public functions."""

from protocontrast.ops.bicl_step import bicl_step, is_served

__all__ = ["bicl_step", "is_served"]
