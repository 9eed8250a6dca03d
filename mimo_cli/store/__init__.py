"""Packed stores: a whole model in the layout that the kernels read."""
