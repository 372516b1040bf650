"""Which host a request goes to."""

from __future__ import annotations

from cluster.fleet import HostHandle, nearest


def host(name: str, tokens: int, *adapters: str) -> HostHandle:
    return HostHandle(name, None, tokens=tokens, adapters=list(adapters))


def test_the_base_goes_to_the_emptiest() -> None:
    assert nearest([host("a", 9), host("b", 5, "x")], "", 100).name == "b"


def test_an_adapter_goes_where_it_is_unless_that_is_a_detour() -> None:
    empty, has = host("empty", 0, "y"), host("has", 99, "x", "y")
    assert nearest([empty, has], "x", 100) is has
    has.tokens = 101
    assert nearest([empty, has], "x", 100) is empty


def test_of_equals_the_one_that_has_it_on() -> None:
    assert nearest([host("a", 5, "x", ""), host("b", 5, "", "x")], "x", 100).name == "b"
    assert nearest([host("a", 5, "", "x"), host("b", 5, "x", "")], "", 100).name == "b"


def test_a_handle_forgets_what_its_host_drops() -> None:
    handle = host("a", 0)
    for adapter in ("x", "", "y", "x", "z"):
        handle.send(adapter, 2)
    assert handle.adapters == ["", "x", "z"]
    assert nearest([handle, host("b", 0)], "y", 100) is not None
    handle.send("", 2)
    assert handle.adapters == ["x", "z", ""]
