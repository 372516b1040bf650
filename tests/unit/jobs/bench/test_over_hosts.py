from __future__ import annotations

import pytest

from engine.errors import ConfigError
from jobs.bench.over_hosts import parse_hosts


def test_numbers_of_hosts() -> None:
    assert parse_hosts("2, 1,2") == [1, 2]


@pytest.mark.parametrize("text", ["0", "1,", "two", "1;2", "-1", "1.5"])
def test_what_is_no_number_of_hosts(text: str) -> None:
    with pytest.raises(ConfigError, match="--hosts"):
        parse_hosts(text)
