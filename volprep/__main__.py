"""`python -m volprep`, and the command itself."""

import os
import signal


def main() -> None:
    """Run the command line; a signal while it is still being loaded ends it as later on."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)
    from volprep.cli import main as run

    run()


def _end(number: int, _frame: object) -> None:
    """End at once: nothing is open yet, and an exception would come up inside of an import."""
    try:  # noqa: SIM105  what has `suppress` is loaded later
        os.write(2, b"interrupted\n")
    except OSError:
        pass
    os._exit(128 + number)


if __name__ == "__main__":
    main()
