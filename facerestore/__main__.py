"""`python -m facerestore` is the command line."""

from facerestore.cli.main import main

if __name__ == "__main__":
    main()
