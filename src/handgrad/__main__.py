"""Entry point of `handgrad` and of `python -m handgrad`."""

import sys

from .errors import HandgradError, optional


def main() -> None:
    """Run the command line. Without the packages of the extra `app`, print how to install them."""
    try:
        optional("click")
    except HandgradError as error:
        sys.exit(f"handgrad: {error}")
    from .cli import handgrad

    handgrad()


if __name__ == "__main__":
    main()
