"""Run the tool as ``python -m orders``."""

import sys

try:
    from .cli import main
except KeyboardInterrupt:  # between the guards of `orders` and `orders.cli`
    sys.exit(130)

if __name__ == "__main__":
    main()
