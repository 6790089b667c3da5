#!/usr/bin/env python3
"""Launch jaxcnn from a checkout: `python launch.py train experiments/mnist_lenet5.py`, `python
launch.py --help`.
"""

import sys

try:
    from jaxcnn.commands._main import main
except ImportError as error:
    sys.exit(f"error: {error}; install jaxcnn first: pip install -e .  (or: make demo)")
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
