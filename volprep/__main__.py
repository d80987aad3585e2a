"""`python -m volprep`, and the command itself."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being loaded ends it as later on."""
    try:
        from volprep.cli import main as run

        run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
