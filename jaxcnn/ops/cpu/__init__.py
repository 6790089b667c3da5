"""Formulations of convolutions that are fast on CPU."""
