import pytest

from hansa.errors import ConfigError
from hansa.runtime.transport.way import proxy_for

SERVER = "https://fl.example.org:8443"
NAMED = {"HTTPS_PROXY": "http://proxy:3128"}


def address(url: str = SERVER, environment: dict[str, str] | None = None, **own: str) -> str | None:
    proxy = proxy_for(url, {} if environment is None else environment, **own)
    return None if proxy is None else str(proxy.url)


@pytest.mark.parametrize(
    ("environment", "own", "found"),
    [
        ({}, "", None),
        (NAMED, "", "http://proxy:3128"),
        ({"https_proxy": "proxy:3128"}, "", "http://proxy:3128"),
        ({**NAMED, "NO_PROXY": "other.org,.example.org"}, "", None),
        ({**NAMED, "no_proxy": "*"}, "", None),
        ({**NAMED, "NO_PROXY": "example.com"}, "", "http://proxy:3128"),
        (NAMED, "http://ours:8080", "http://ours:8080"),
        (NAMED, "none", None),
        ({**NAMED, "NO_PROXY": "*"}, "ours:8080", "http://ours:8080"),
    ],
)
def test_a_sites_own_proxy_comes_before_that_of_the_environment(environment: dict[str, str], own: str, found: str | None) -> None:
    assert address(environment=environment, own=own) == found


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_a_server_on_this_machine_needs_no_proxy_unless_the_site_says_so(host: str) -> None:
    assert address(f"https://{host}:8443", NAMED) is None
    assert address(f"https://{host}:8443", NAMED, own="http://ours:8080") == "http://ours:8080"


def test_a_login_comes_from_the_address_or_else_from_the_kit_and_is_not_shown() -> None:
    kits = proxy_for(SERVER, NAMED, login="north:pa:ss")
    own = proxy_for(SERVER, {"HTTPS_PROXY": "http://a:b@proxy:3128"}, login="north:pass")
    assert kits is not None
    assert own is not None
    assert (kits.auth, own.auth) == (("north", "pa:ss"), ("a", "b"))
    assert "pa:ss" not in repr(kits)


@pytest.mark.parametrize(
    "address_", ["http://", "ftp://proxy:3128", "https://proxy:443", "socks5://user:pw@proxy:1080", "http://proxy:port"]
)
def test_what_is_no_address_of_a_proxy_is_named_without_what_it_may_hide(address_: str) -> None:
    with pytest.raises(ConfigError) as caught:
        proxy_for(SERVER, {"HTTPS_PROXY": address_})
    assert caught.value.path == "HTTPS_PROXY"
    assert "pw" not in str(caught.value)


def test_a_password_in_site_toml_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"proxy\.login") as caught:
        proxy_for(SERVER, {}, own="http://north:pw@proxy:3128")
    assert "pw" not in str(caught.value)
