"""jaxcnn: a functional training framework for convolutional networks on JAX.

Importing this package imports nothing else: an experiment file names what it needs.
"""

__version__ = "0.1.0"
