"""SST-2 before and after LoRA fine-tuning, by four explainers.

The flags and files of the original's `run_pipeline_modular.py`.

`python -m jobs.run_pipeline_modular --help` lists the flags; docs/legacy.md tells what is written.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from jobs.codes import guarded
from jobs.legacy.flags import modular_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 2 some examples failed, 3 aborted."""
    options = modular_parser().parse_args(arguments)

    def action() -> int:
        from analysis.legacy.files import write_modular
        from jobs.legacy.run import run_legacy
        from jobs.legacy.sweeps import modular_run

        return run_legacy(modular_run(options), write_modular, Console(soft_wrap=True))

    return guarded(action)


if __name__ == "__main__":
    sys.exit(main())
