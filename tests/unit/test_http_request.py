"""Requests as HAProxy sees them. Each odd case was answered so by HAProxy 2.6.12."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from anycastlb.core.http.access_log import read_line
from anycastlb.core.http.request import Request, Target, host_of, hosts_of, request_of

HOSTS = {
    "SHOP.example": "shop.example",
    "shop.example:8080": "shop.example",
    "Shop.Example.:80": "shop.example",
    "a..": "a.",
    "10.0.0.1:80": "10.0.0.1",
    "[2001:DB8::1]:80": "[2001:db8::1]",
    "[::1]": "[::1]",
    "a:http": "a",
    "": "",
}


@pytest.mark.parametrize(("header", "host"), HOSTS.items())
def test_a_host_is_compared_without_port_case_and_one_dot(header: str, host: str) -> None:
    assert host_of(header) == host


def test_the_closest_hostname_comes_first_and_a_wildcard_has_a_bound() -> None:
    assert list(hosts_of("a.b.example")) == ["a.b.example", "*.b.example", "*.example", "*"]
    assert list(hosts_of("localhost")) == ["localhost", "*"]
    assert len(list(hosts_of("a." * 20 + "example"))) == 1 + 8 + 1


def test_an_url_becomes_a_request() -> None:
    target, request = request_of("https://Shop.example/blog/1?page=2#top", headers=[("User-Agent", " HTTPie/1 ")])
    assert target == Target("https", 443)
    assert request == Request("GET", "shop.example", "/blog/1", "page=2", (("user-agent", "HTTPie/1"),))
    target, request = request_of("http://192.0.2.10:8080", "POST", [("Host", "shop.example:8080")])
    assert (target.port, request.host, request.path) == (8080, "shop.example", "/")
    assert request_of("http://a/b ü//%61/../?x y").__getitem__(1).path == "/b%20%C3%BC//%61/../"


@pytest.mark.parametrize(
    "url", ["shop.example/blog", "ftp://shop.example/", "https:///x", "http://a:0/", "http://a:99999/"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="an URL such as"):
        request_of(url)


def test_what_stands_twice_counts_once() -> None:
    headers = (("x-h", "one"), ("x-h", "two, three"), ("cookie", "uid=a; x=1"), ("cookie", 'uid="q"; uid=2'))
    request = Request("GET", "a", "/x", "b&a=1;b=2&a=3&aa=4&c=", headers)
    assert request.header("x-h") == "two, three" and request.header("x") is None
    assert [request.parameter(name) for name in ("a", "b", "aa", "c", "d")] == ["1", "2", "4", "", None]
    assert request.cookie("uid") == "2" and request.cookie("ui") is None


COMBINED = '192.0.2.1 - bob [29/Nov/2026:10:00:00 +0000] "GET /blog/1?x=2 HTTP/1.1" 200 12 "-" "curl/7 \\"q\\""'


def test_lines_of_an_access_log() -> None:
    agent = (("user-agent", 'curl/7 \\"q\\"'),)
    wanted = Request("GET", "shop.example", "/blog/1", "x=2", agent, ip_address("192.0.2.1"))
    assert read_line(COMBINED, "shop.example") == wanted
    assert read_line(f"Shop.example:443 {COMBINED}", "other") == wanted
    said = '{"host": "shop.example", "uri": "/blog/1?x=2", "user_agent": "a", "headers": {"X-A": 1}}'
    assert read_line(said, "") == Request("GET", "shop.example", "/blog/1", "x=2", (("x-a", "1"), ("user-agent", "a")))
    absolute = read_line('::1 - - [x] "GET http://A.example:80/x?y HTTP/1.1" 200 1', "other")
    assert absolute == Request("GET", "a.example", "/x", "y", (), ip_address("::1"))


@pytest.mark.parametrize(
    "line", ["", "nonsense", "{", "[]", '{"path": 1}', '1.2.3.4 - - [x] "CONNECT a:1 HTTP/1.1" 1 1', "{" * 9999]
)
def test_a_line_that_is_no_request_is_none(line: str) -> None:
    assert read_line(line, "a") is None
