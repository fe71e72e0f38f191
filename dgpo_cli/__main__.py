"""`python -m dgpo_cli`: the same program as the `dgpo` entry point."""

from dgpo_cli.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
