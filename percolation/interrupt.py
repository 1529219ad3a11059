"""Ctrl-C ends a program in one line and at once, from before its heavy imports to its very end.

Python's own way is an exception wherever the program happens to be: inside an import it comes out as dozens of lines,
or as another error; in a callback or a destructor it is printed and lost; in C++ it aborts the process. A run may be
killed at any moment and goes on from there, so nothing is gained by unwinding. This module needs the standard library
alone, since it comes before all other imports.
"""

from __future__ import annotations

import os
import signal
import sys

STATUS = 128 + signal.SIGINT


def end_in_one_line(program: str) -> None:
    """From here on end the process on Ctrl-C, with one line on standard error."""

    def stop(*_: object) -> None:
        try:
            if sys.stderr is not None:  # else number 2 may be another file's
                bars = getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "_instances", ())
                start = "\n" if os.isatty(2) or bars else ""  # below ^C and the progress bar
                os.write(2, f"{start}{program}: stopped; the same command goes on from here\n".encode())
        finally:
            os._exit(STATUS)

    signal.signal(signal.SIGINT, stop)
