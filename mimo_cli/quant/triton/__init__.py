"""Kernels for CUDA devices, written in Triton; they read the same packed bytes as the processor's kernels."""
