"""Entry point of `handgrad` and of `python -m handgrad`."""

import sys

from ._interrupt import restore
from .errors import HandgradError, optional


def main() -> None:
    """Run the command line. Without the packages of the extra `app`, print how to install them."""
    try:
        optional("click")
        from .cli import handgrad
    except HandgradError as error:
        sys.exit(f"handgrad: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    restore()
    handgrad()


if __name__ == "__main__":
    main()
