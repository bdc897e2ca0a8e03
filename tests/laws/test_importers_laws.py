"""Whatever text is imported: the documents are good ones, or the error is ours."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from anycastlb.adapters.checks import PARAMS
from anycastlb.cli import formats
from anycastlb.core.catalog.parse import ANY_MARK, ANYWHERE, parse_catalog
from anycastlb.core.importers import UnreadableInput
from anycastlb.core.model import Catalog, Entry, Tree

ADDRESSES = ["192.0.2.1", "10.0.0.1", "10.0.0.2", "[fd00::1]", "fd00::1", "0.0.0.0", "224.0.0.1", "192.0.2.1-3", "x"]
NUMBERS = ["0", "1", "80", "65536", "-1", "99999999999", "٣", "1.5", "", "255.255.255.0", "²"]
LETTERS = [
    "-A", "-a", "-t", "-u", "--sctp-service", "-f", "-s", "mh", "rr", "bogus", "-b", "mh-port,sh-port", "-p", "-M",
    "-o", "-r", "-g", "-i", "-m", "-w", "-x", "-y", "--tun-type", "gue", "gre", "--tun-port", "--pe", "-6",
    "--weight=3",
]  # fmt: skip
KEYWORDS = [
    "virtual_server", "virtual_server_group", "real_server", "group", "g", "fwmark", "protocol", "UDP", "SCTP",
    "lvs_sched", "mh", "mh-port", "lb_kind", "TUN", "DR", "type", "gue", "port", "quorum", "hysteresis", "weight",
    "sorry_server", "delay_loop", "retry", "HTTP_GET", "url", "path", "/x", "status_code", "200-299", "regex", "(",
    "TCP_CHECK",
    "MISC_CHECK", "misc_path", "DNS_CHECK", "name", "UDP_CHECK", "payload", "persistence_timeout", "connect_ip",
    "persistence_granularity", "ops", "include", "$A=1", "$A", "${A}", "$A= \\", "\\", "@x", "~SEQ(a,1,9)", "#", "!",
    '"', "'", "{", "}", "{", "}", "\n", "\n", "\n",
]  # fmt: skip


def check(text: str, kind: formats.Format) -> None:
    try:
        documents, notes = formats.read(text, kind)
    except UnreadableInput as exc:
        assert str(exc)
        return
    assert all(isinstance(note, str) for note in notes)
    if kind == "anycastlb":
        return
    beside = {"gateways/web": formats.LISTENER} if kind == "elb" else {}
    whole = {**beside, **documents}
    tree = Tree({key: Entry(json.dumps(value).encode()) for key, value in whole.items()})
    catalog = parse_catalog(tree, Catalog(), ANYWHERE, ANY_MARK, PARAMS)
    assert catalog.problems == ()
    assert catalog.good.keys() == whole.keys()


def endpoints() -> st.SearchStrategy[str]:
    return st.builds(lambda host, port: f"{host}:{port}", st.sampled_from(ADDRESSES), st.sampled_from(NUMBERS))


@given(st.text(max_size=200), st.sampled_from(formats.FORMATS))
def test_any_text(text: str, kind: formats.Format) -> None:
    check(text, kind)


@given(
    st.lists(
        st.lists(st.one_of(st.sampled_from(LETTERS), endpoints(), st.sampled_from(NUMBERS)), max_size=12).map(" ".join),
        max_size=6,
    ).map("\n".join)
)
def test_any_words_of_ipvsadm(text: str) -> None:
    check(text, "ipvsadm")


@given(
    st.lists(
        st.tuples(endpoints(), st.sampled_from(["-t", "-u"]), st.sampled_from(["mh", "rr", "sh"]), endpoints()),
        max_size=5,
    )
)
def test_lines_that_are_nearly_right(rows: list[tuple[str, str, str, str]]) -> None:
    text = "".join(f"-A {kind} {vip} -s {how}\n-a {kind} {vip} -r {real} -i\n" for vip, kind, how, real in rows)
    check(text, "ipvsadm")


@given(
    st.lists(
        st.one_of(st.sampled_from(KEYWORDS), st.sampled_from(ADDRESSES), st.sampled_from(NUMBERS)), max_size=60
    ).map(" ".join)
)
def test_any_words_of_keepalived(text: str) -> None:
    check(text, "keepalived")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(KEYWORDS),
            st.lists(st.one_of(st.sampled_from(ADDRESSES + NUMBERS), st.sampled_from(KEYWORDS[:40])), max_size=3),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_keepalived_blocks_that_are_nearly_right(rows: list[tuple[str, list[str], bool]]) -> None:
    inside = "".join(
        f"  {word} {' '.join(words)}" + (" {\n  }\n" if block else "\n")
        for word, words, block in rows
        if word not in "{}\"'\n#!"
    )
    check(f"virtual_server 192.0.2.1 80 {{\n{inside}\n real_server 10.0.0.1 80 {{\n{inside}\n}}\n}}\n", "keepalived")
