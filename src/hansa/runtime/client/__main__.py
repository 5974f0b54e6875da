"""`python -m hansa.runtime.client KIT`: a site's agent."""

from __future__ import annotations

import os
import sys

from hansa.errors import HansaError
from hansa.runtime.client.loop import serve
from hansa.runtime.logs import Style, configure


def main(arguments: list[str], log_format: Style = "text") -> int:
    """Serve the site of the kit; the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m hansa.runtime.client KIT\n")
        return 2
    configure(log_format)

    def ready(url: str) -> None:
        sys.stdout.write(f"ready {url}\n")
        sys.stdout.flush()

    try:
        serve(arguments[0], environment=os.environ, ready=ready)
    except HansaError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
