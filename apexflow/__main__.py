"""``python -m apexflow`` is the command line."""

from apexflow.cli import main

if __name__ == "__main__":
    main()
