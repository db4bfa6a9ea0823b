"""`python -m lobit.cli`, the same as `lobit`."""

from lobit.cli import main

if __name__ == "__main__":
    main()
