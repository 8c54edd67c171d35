"""Run the command line from a checkout: ``python cli.py place "100 inch TV"``."""

from orders.cli import app, main

__all__ = ["app", "main"]

if __name__ == "__main__":
    main()
