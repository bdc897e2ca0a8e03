"""``python -m anycastlb``: the same commands as ``anycastlb``."""

from anycastlb.cli import main

if __name__ == "__main__":
    main(prog_name="anycastlb")
