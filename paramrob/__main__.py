"""``python -m paramrob``."""

from paramrob.cli import main

if __name__ == "__main__":
    main(prog_name="paramrob")
