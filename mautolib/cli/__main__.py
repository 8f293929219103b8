"""`python -m mautolib.cli`: the same as `mauto`."""

from mautolib.cli.app import main

if __name__ == "__main__":
    main()
