"""Compiled loops: arrays in, arrays out, no I/O, no randomness. The only room with numba.

Its files are its face: each is imported where it is called, so that numba loads only then.
"""
