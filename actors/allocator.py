"""How the C library's allocator treats the memory of freed tensors."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD = -1  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_MMAP_THRESHOLD = -3

KEPT = 1 << 30
"""Bytes of freed memory at the end of the heap that stay with the process."""

MAPPED = 1 << 25
"""Larger tensors still get memory of their own from the system; glibc takes no larger limit."""


def keep_freed_memory() -> bool:
    """Let glibc give freed tensors' memory to the next ones instead of back to the system.

    A forward pass frees and asks for the same few megabytes at every layer. By default they go back
    to the system and come again as zeroed pages, one fault for each 4 KB. It is a setting of the
    process, and the memory that it keeps is what the largest pass has needed anyhow.

    Returns:
        Whether it was taken; False with another C library.
    """
    try:
        adjust = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(adjust(_MMAP_THRESHOLD, MAPPED)) and bool(adjust(_TRIM_THRESHOLD, KEPT))
