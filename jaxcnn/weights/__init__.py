"""Weights from other places: files, rules of names, loading."""
