"""Broken, doubtful and sound inputs, made by code: each kind with what must be said of it."""
