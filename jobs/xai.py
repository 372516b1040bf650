"""LIME and KernelSHAP on SST-2, before and after LoRA fine-tuning.

The flags and files of the original's `llama_3.2_1B_xai.py`.

`python -m jobs.xai --help` lists the flags; docs/legacy.md tells what is written.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from jobs.codes import guarded
from jobs.legacy.flags import xai_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 2 some examples failed, 3 aborted."""
    options = xai_parser().parse_args(arguments)

    def action() -> int:
        from analysis.legacy.files import write_xai
        from jobs.legacy.run import run_legacy
        from jobs.legacy.sweeps import xai_run

        return run_legacy(xai_run(options), write_xai, Console(soft_wrap=True))

    return guarded(action)


if __name__ == "__main__":
    sys.exit(main())
