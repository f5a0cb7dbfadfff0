"""The compiled core: Cython loops and threads over the C kernels of ``csrc/``."""
