"""Whole programs, one a library: read MNIST from disk, learn it to an accuracy on the test set.

Each is what one would write with that library alone; only fastmlp's own imports this package.

``python PROGRAM FOLDER ACCURACY MOST_EPOCHS THREADS SEED``, with raw IDX files in FOLDER/mnist,
prints ``{"accuracy": ..., "epochs": ...}`` and ends when standard input does, so that its memory
can be read.
"""
