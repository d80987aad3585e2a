"""Compiled loops: arrays in, arrays out, no I/O, no randomness. The only room with numba."""
