"""``python -m anycastlb.bridge``."""

from anycastlb.bridge import main

if __name__ == "__main__":
    main()
