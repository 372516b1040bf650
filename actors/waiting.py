"""How long a model's threads look for work before they sleep."""

from __future__ import annotations

import os

SPINS = "1000"
"""Turns of GNU OpenMP's loop, some microseconds. Threads that never sleep take the cores that step
tasks and other hosts want: on two cores with two other busy processes 6 to 30 sequences a second,
always asleep a steady 15 to 25, in six interleaved runs. But waking up costs as well, and a layer
waits many times: 20 texts in one process took 42.5 and 44.2 s always asleep, 41.5 s with so many
turns, 41.6 and 42.4 s spinning. In a sweep the gain is within what runs differ by.
"""


def wait_briefly() -> None:
    """Have OpenMP's threads sleep after a short look, unless the environment says otherwise.

    OpenMP reads it when torch is first imported, so call it before that.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        return
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    # other OpenMP libraries don't know it; with GNU's it goes before the policy
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
