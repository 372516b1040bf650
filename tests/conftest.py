"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# speed is no property: on a busy machine an example may take long
settings.register_profile("rayxai", deadline=None)
settings.load_profile("rayxai")
