"""`python -m producer` is the `imagemill` command, for a checkout that is not installed."""

from producer.cli import main

if __name__ == "__main__":
    main()
