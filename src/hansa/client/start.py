"""What a script's process begins with: `python -P start.py LINE PARENT SCRIPT [ARGUMENT ...]`, two descriptors and the script.

It runs the script as `python SCRIPT` would, with the line at hand, ends with the process that started it, whatever the script is
doing, and tells how it failed.
"""

from __future__ import annotations

import runpy
import socket
import sys
import traceback
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, TracebackType
from typing import cast

from hansa import registry
from hansa.runtime.sandbox import end_with


def main(line: int, parent: int, script: str, arguments: list[str]) -> int:
    """Run the script; its exit code."""
    end_with(parent, line)  # before the numeric libraries, which start threads
    from hansa.client.door import connect
    from hansa.client.line import Raised

    channel = socket.socket(fileno=line)
    channel.set_inheritable(False)  # what the script starts has no part in this
    door = connect(channel, Path.cwd())
    sys.meta_path.insert(0, _Doors())
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(script).parent))  # its neighbours can be imported, as when it is run
    try:
        runpy.run_path(script, run_name="__main__")
    except Exception as error:  # the outermost call of a script
        own = _own(error.__traceback__, script)
        message = traceback.format_exception_only(error)[-1].strip()
        trace = "".join(traceback.format_exception(type(error), error, own))
        door.tell(Raised(message=message[:MOST], trace=trace[-MOST:]))
        return 1
    return 0


class _Doors(MetaPathFinder):
    """Finds modules of other systems for which a door of ours stands: the entry points `hansa.imports`."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if "." in fullname or fullname not in registry.names("imports"):
            return None
        sys.meta_path.remove(self)
        finder = cast(MetaPathFinder, registry.find("imports", fullname))
        sys.meta_path.insert(0, finder)
        return finder.find_spec(fullname, path, target)


MOST = 100_000  # characters of a message or a traceback


def _own(frames: TracebackType | None, script: str) -> TracebackType | None:
    """The traceback from the script's own first line on."""
    while frames is not None and frames.tb_frame.f_code.co_filename != script:
        frames = frames.tb_next
    return frames


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]))
