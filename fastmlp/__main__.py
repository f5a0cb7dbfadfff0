"""``python -m fastmlp`` is the command ``fastmlp``."""

from fastmlp.cli import main

if __name__ == "__main__":
    main()
