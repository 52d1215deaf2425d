"""`python -m bayesfilt` is the command `bayesfilt`."""

from bayesfilt.cli import main

if __name__ == "__main__":
    main()
