"""`handgrad` and `python -m handgrad`: the command line, or the one line that says how to install it."""

import sys

from .errors import HandgradError, optional


def main() -> None:
    """Run the command line."""
    try:
        optional("click")
    except HandgradError as error:
        sys.exit(f"handgrad: {error}")
    from .cli import handgrad

    handgrad()


if __name__ == "__main__":
    main()
