"""``python -m lobit``."""

from lobit.cli import main

if __name__ == "__main__":
    main()
