"""Run the tool as ``python -m orders``."""

from .cli import main

if __name__ == "__main__":
    main()
