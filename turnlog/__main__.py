"""``python -m turnlog``: the command line."""

from turnlog.adapters.cli import main

if __name__ == "__main__":
    main()
