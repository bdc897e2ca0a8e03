"""Other load balancers' configuration to our documents: what is carried over, what is named, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.checks import PARAMS
from anycastlb.adapters.sources.staging import MAX_DOCUMENT
from anycastlb.cli import formats
from anycastlb.core.catalog.parse import ANY_MARK, ANYWHERE, parse_catalog
from anycastlb.core.importers import UnreadableInput
from anycastlb.core.model import Catalog, Entry, Service, Tree
from tests.support.effort import calls
from tests.support.serving import command

SAVED = """\
-A -t 192.0.2.10:80 -s mh -b mh-fallback,mh-port
-a -t 192.0.2.10:80 -r 10.1.0.1:80 -i -w 5 --tun-type ipip
-a -t 192.0.2.10:80 -r 10.1.0.2:80 -i -w 1 --tun-type gue --tun-port 6081 --tun-nocsum
-a -t 192.0.2.10:80 -r 10.1.0.3:80 -i -w 1 --tun-type gre --tun-csum
-A -t 192.0.2.11:0 -s lc -p 360
-a -t 192.0.2.11:0 -r 10.1.0.1:0 -m -w 1
-A -u 192.0.2.10:53 -s mh -o
-a -u 192.0.2.10:53 -r 10.1.0.1:53 -g -w 1 -x 100 -y 50
-A -u 192.0.2.12:5060 -s rr -p 30 --pe sip
-A --sctp-service 192.0.2.10:99 -s sh -p 300 -M 255.255.255.0 -b sh-port
-a --sctp-service 192.0.2.10:99 -r 10.1.0.9:98 -m -w 1
-A -t [2001:db8::1]:80 -s wrr -p 60 -M 64
-a -t [2001:db8::1]:80 -r [fd00::1]:80 -g -w 100000
-A -f 101 -6 -s rr
-a -f 101 -6 -r [fd00::1]:0 -g -w 1
"""


def parsed(documents: dict[str, Any]) -> dict[str, Service]:
    """The services, as a node would have them; no problem may be among them."""
    tree = Tree({key: Entry(json.dumps(value).encode()) for key, value in documents.items()})
    catalog = parse_catalog(tree, Catalog(), ANYWHERE, ANY_MARK, PARAMS)
    assert catalog.problems == ()
    return {service.name: service for service in catalog.services}


# ---------------------------------------------------------------- ipvsadm


def test_every_letter_of_ipvsadm() -> None:
    documents, notes = formats.read(SAVED)
    services = parsed(documents)
    web = services["tcp-192.0.2.10-80"]
    assert (web.virtual.scheduler, web.virtual.flags) == ("mh", frozenset({"mh-fallback", "mh-port"}))
    assert [(str(b.address), b.forward, b.weight, b.tunnel_port) for b in web.backends] == [
        ("10.1.0.1", "tunnel", 5, 0), ("10.1.0.2", "gue", 1, 6081), ("10.1.0.3", "gre", 1, 0),
    ]  # fmt: skip
    every = services["tcp-192.0.2.11-0"]
    assert (every.port, every.virtual.persistence, every.backends[0].forward) == (0, 360, "nat")
    dns = services["udp-192.0.2.10-53"]
    assert (dns.virtual.one_packet, dns.virtual.flags, dns.backends[0].forward) == (True, frozenset(), "dr")
    assert (dns.backends[0].upper, dns.backends[0].lower) == (100, 50)
    sctp = services["sctp-192.0.2.10-99"]
    assert (sctp.virtual.persistence_prefix, sctp.backends[0].port) == (24, 98)
    six = services["tcp-2001:db8::1-80"]
    assert (six.virtual.persistence_prefix, six.backends[0].weight) == (64, 65535)
    assert "fwmark-101" not in services
    told = "\n".join(notes)
    for text in (
        "line 4: --tun-csum: gre is sent without checksums here",
        "line 9: --pe sip",
        "line 13: weight 100000 is above",
        "line 14: fwmark 101: a service needs its VIP",
        "ipvsadm knows no health checks",
    ):
        assert text in told


def test_commands_with_long_options_are_read_too() -> None:
    text = """\
    # a script
    ipvsadm --clear
    /sbin/ipvsadm --add-service --tcp-service=192.0.2.1:80 --scheduler wlc --persistent
    ipvsadm --edit-service -t 192.0.2.1:80 -s wrr
    ipvsadm --add-server -t 192.0.2.1:80 --real-server=10.0.0.1 --masquerading --weight=7
    ipvsadm --edit-server -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 8
    ipvsadm --set 900 120 300
    """
    documents, notes = formats.read(text)
    (service,) = parsed(documents).values()
    assert (service.virtual.scheduler, service.virtual.persistence) == ("wrr", 0)
    assert [(b.address.compressed, b.port, b.weight) for b in service.backends] == [("10.0.0.1", 80, 8)]
    assert any(note.startswith("line 7: --set 900 120 300: nothing like it") for note in notes)


def test_names_of_ports_but_not_of_hosts() -> None:
    documents, _ = formats.read("-A -t 192.0.2.1:http -s rr\n-a -t 192.0.2.1:http -r 10.0.0.1:http -g")
    assert [service.port for service in parsed(documents).values()] == [80]
    with pytest.raises(UnreadableInput, match=r"line 1: expected an IPv4 or IPv6 address, not 'lb.example.org'; .*-Sn"):
        formats.read("-A -t lb.example.org:http -s rr")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("-a -t 192.0.2.1:80 -r 10.0.0.1:80", "line 1: expected service 192.0.2.1:80 to be added before"),
        ("-A -t 192.0.2.1:80 -s", "line 1: expected a value after -s"),
        ("-A -s rr", "line 1: expected a service"),
        ("\n-A -t 192.0.2.1:99999", "line 2: expected a port, a number from 0 to 65535, not '99999'"),
        ("-A -t 192.0.2.1:80 --frob", "line 1: expected an option of ipvsadm -S, not '--frob'"),
        ("-A -t 192.0.2.1:80 -M 255.0.255.0 -p", "line 1: expected a netmask"),
        ('-A -t "192.0.2.1:80', "line 1: expected a line of ipvsadm -S"),
        ("TCP  192.0.2.1:80 rr", "expected a dump"),
    ],
)
def test_garbage_from_ipvsadm_is_told_with_its_line(text: str, told: str) -> None:
    with pytest.raises(UnreadableInput) as caught:
        formats.read(text)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("-a -t 192.0.2.1:80", "line 3: expected a server"),
        ("TCP 192.0.2.1:80 rr", "line 3: expected -A or -a"),
        ("-a -t 192.0.2.1:80 -r 10.0.0.9:80 --frob", "line 3: expected an option of ipvsadm -S, not '--frob'"),
        ("-a -t 192.0.2.1:80 -r 10.0.0.9:80 -w -1", "line 3: expected a weight"),
        ("-a -t 192.0.2.1:80 -r web9:80", "line 3: expected an IPv4 or IPv6 address, not 'web9'"),
        ("-a -t 192.0.2.9:80 -r 10.0.0.9:80", "line 3: expected service 192.0.2.9:80 to be added before"),
        ("-D -t 192.0.2.1:80", "line 3: expected -A or -a"),
        ('-a -t "192.0.2.1:80', "line 3: expected a line of ipvsadm -S"),
    ],
)
def test_one_odd_line_of_ipvsadm_costs_only_itself(line: str, told: str) -> None:
    text = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m\n{}\n-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m\n"
    documents, notes = formats.read(text.format(line), "ipvsadm")
    assert list(documents["services/tcp-192.0.2.1-80"]["backends"]) == ["10.0.0.1:80", "10.0.0.2:80"]
    assert any(note.startswith(told) and note.endswith("left out") for note in notes)


def test_a_line_without_end_is_told_and_not_read() -> None:
    documents, notes = formats.read("-A -t 192.0.2.1:80 -s rr\n-A -t " + "1" * 1_000_000)
    assert list(documents) == ["services/tcp-192.0.2.1-80"]
    assert "line 2: expected at most 4096 characters in a line, not 1000006; left out" in notes


def test_blank_lines_are_passed_over_once() -> None:
    """They would take hours if each were looked at from every one before it."""
    assert formats.recognized("x\n" + "\n" * 1_000_000 + "virtual_server 192.0.2.1 80 {\n}\n") == "keepalived"


def test_options_of_ipvsadm_that_mean_nothing_together_are_told() -> None:
    text = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 10.0.0.1:80 -g --tun-type gre -x 5 -y 9 -w 0\n"
    documents, notes = formats.read(text, "ipvsadm")
    assert documents["services/tcp-192.0.2.1-80"]["backends"] == {
        "10.0.0.1:80": {"address": "10.0.0.1", "weight": 0, "max_connections": 5}
    }
    assert any("line 2: -w 0: no new flows, and so it stays" in note for note in notes)
    assert any("--tun-type gre: only with -i" in note for note in notes)
    assert any("-y 9 is above -x 5" in note for note in notes)


ONE = "-A -t 192.0.2.1:80 -s rr\n"


@pytest.mark.parametrize(
    ("before", "line"),
    [("", "-A -t {}:80 -s rr -p 9999999\n"), (ONE, "-a -t 192.0.2.1:80 -r {}:80 -m\n")],
    ids=["services that are refused", "servers of a service"],
)
def test_long_lists_take_work_in_proportion(before: str, line: str) -> None:
    """Each was looked for among all of them."""

    def work(many: int) -> int:
        text = before + "".join(line.format(f"10.0.{n // 250}.{n % 250 + 1}") for n in range(many))
        return calls(lambda: formats.read(text))

    assert work(1600) < 2.3 * work(800)


# ---------------------------------------------------------------- keepalived

CONF = """\
! a comment
global_defs {
    router_id LVS_A
}
$VIP=192.0.2.10
$RS= \\
    real_server 10.0.0.${N} 80 { \\
        weight 3 \\
        HTTP_GET { \\
            url { \\
                path /health \\
                status_code 200-204 301 \\
            } \\
            connect_timeout 2.5 \\
        } \\
    }
virtual_server_group many {
    192.0.2.20-22 443
    192.0.2.30 444
    fwmark 7
}
virtual_server $VIP 80 {
    delay_loop 6
    lvs_sched mh
    mh-port
    lb_kind TUN type gue port 6080 nocsum
    quorum 4
    hysteresis 1
    quorum_up "/bin/x up"
    retry 2
    sorry_server 10.0.0.99 8080
    protocol TCP
    $N=1
    $RS
    $N=2
    $RS
    real_server 10.0.0.3 80 {
        lvs_method DR   # beside the others
        uthreshold 100
        lthreshold 50
        inhibit_on_failure
        notify_down "/bin/x '{down}'"
        MISC_CHECK {
            misc_path "/usr/bin/probe --deep"
            misc_timeout 9
        }
        TCP_CHECK {
            connect_port 99
        }
    }
}
virtual_server group many {
    protocol TCP
    lb_algo wlc
    persistence_timeout
    virtualhost www.example.org
    real_server 10.0.0.4 443 {
        SSL_GET {
            url {
                path /
                digest 9b3a0c85a887a256d6939da88aabd8cd
                regex "^ok$"
                regex_options caseless
            }
        }
    }
}
virtual_server 2001:db8::1 53 {
    protocol UDP
    lb_algo rr
    lb_kind TUN
    ops
    real_server fd00::1 53 {
        DNS_CHECK {
            type A
            name example.org
        }
    }
    real_server fd00::2 53 {
        UDP_CHECK {
            payload 00 ff
            require_reply 0a
        }
    }
    real_server fd00::3 53 {
        PING_CHECK {
        }
        BFD_CHECK {
            name b1
        }
    }
    real_server fd00::4 25 {
        SMTP_CHECK {
            helo_name x
        }
    }
}
vrrp_instance VI_1 {
    state MASTER
    @main priority 100
}
"""


def test_keepalived_services() -> None:
    documents, notes = formats.read(CONF)
    services = parsed(documents)
    assert sorted(services) == [
        "tcp-192.0.2.10-80", "tcp-192.0.2.20-443", "tcp-192.0.2.30-444", "udp-2001:db8::1-53",
    ]  # fmt: skip
    web = services["tcp-192.0.2.10-80"]
    assert web.virtual.flags == {"mh-port"}
    assert [(str(b.address), b.port, b.forward, b.weight, b.fallback) for b in web.backends] == [
        ("10.0.0.1", 80, "gue", 3, False), ("10.0.0.2", 80, "gue", 3, False),
        ("10.0.0.3", 80, "dr", 1, False), ("10.0.0.99", 80, "gue", 1, True),
    ]  # fmt: skip
    assert (web.backends[2].upper, web.backends[2].lower) == (100, 50)
    assert (str(web.announce.min_backends), str(web.announce.reopen)) == ("weight 3", "weight 5")
    assert [str(vip) for vip in services["tcp-192.0.2.20-443"].vips] == ["192.0.2.20", "192.0.2.21", "192.0.2.22"]
    assert services["tcp-192.0.2.20-443"].virtual.persistence == 360
    assert services["tcp-192.0.2.20-443"].backends[0].forward == "nat"
    assert services["udp-2001:db8::1-53"].virtual.one_packet is True
    told = "\n".join(notes)
    for text in (
        "line 2: global_defs: ",
        "line 20: fwmark 7: a service needs its VIP",
        "line 29: virtual_server 192.0.2.10: quorum_up /bin/x up: left out",
        "line 31: sorry_server: ",
        "line 31: port 8080: gue leaves the port as it is; 80 instead",
        "line 42: real_server 10.0.0.3: notify_down /bin/x '{down}': left out",
        "line 44: MISC_CHECK: allow '/usr/bin/probe' in [checks] commands",
        "line 61: digest: ",
        "line 88: BFD_CHECK: no such check here",
        "line 93: SMTP_CHECK: the greeting",
        "line 98: vrrp_instance VI_1: VRRP has no counterpart",
    ):
        assert text in told, text


def test_keepalived_checks() -> None:
    services = parsed(formats.read(CONF)[0])
    first, _, third, _ = (backend.check for backend in services["tcp-192.0.2.10-80"].backends)
    assert (first.type, first.interval, first.timeout, first.rise, first.fall) == ("http", 6.0, 2.5, 1, 3)
    assert first.fast_interval == 3.0, "HTTP_GET's delay_before_retry"
    assert (third.type, third.timeout, third.fall) == ("all", 9.0, 3)
    secure = services["tcp-192.0.2.20-443"].backends[0].check
    assert (secure.type, secure.interval, secure.fall) == ("https", 60.0, 2)
    document = formats.read(CONF)[0]["services/tcp-192.0.2.20-443"]["check"]
    assert document["body"] == "re:(?i)^ok$"
    assert (document["host"], document["verify"], document["expect"]) == ("www.example.org", False, "200-299")
    kinds = [backend.check.type for backend in services["udp-2001:db8::1-53"].backends]
    assert kinds == ["dns", "udp", "icmp", "tcp"]


def test_an_included_file_is_read_and_named(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/a.conf").write_text("virtual_server 192.0.2.1 80 {\n frobnicate\n}\n")
    main = tmp_path / "keepalived.conf"
    main.write_text("include conf.d/*.conf\n")
    documents, notes = formats.read(formats.load(str(main)), "auto", formats.beside(str(main)))
    assert list(documents) == ["services/udp-192.0.2.1-80"]
    assert any("a.conf line 2: virtual_server 192.0.2.1: frobnicate: left out" in note for note in notes)
    service = "virtual_server 192.0.2.1 80 {\n}\n"
    for lost, told in [
        ("keepalived.conf", "circle"),
        ("missing.conf", "line 1: include missing.conf: expected a file"),
    ]:
        main.write_text(f"include {lost}\n{service}")
        documents, notes = formats.read(formats.load(str(main)), "keepalived", formats.beside(str(main)))
        assert list(documents) == ["services/udp-192.0.2.1-80"]
        assert told in "\n".join(notes)


def test_files_are_included_as_keepalived_does_it(tmp_path: Path) -> None:
    """A pattern is relative to the file that has it, may have braces, and does not mean files that begin with a dot."""
    real = "real_server 10.0.0.{} 80 {{\n}}\n"
    for name, text in {
        "main.conf": "virtual_server 192.0.2.1 80 {\n include parts/*\n include {c,d}/x.conf\n}\n",
        "parts/a": "include inner/b\n",
        "parts/inner/b": real.format(1),
        "inner/b": real.format(99),
        "parts/.a.swp": real.format(98),
        "c/x.conf": real.format(2),
        "d/x.conf": real.format(3),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    main = str(tmp_path / "main.conf")
    documents, notes = formats.read(formats.load(main), "keepalived", formats.beside(main))
    assert list(documents["services/udp-192.0.2.1-80"]["backends"]) == [f"10.0.0.{n}:80" for n in (1, 2, 3)]
    assert not [note for note in notes if "not read" in note]
    bomb, _ = formats.read("include " + "{a,b}" * 20 + "\nvirtual_server 192.0.2.1 80 {\n}\n", "keepalived",
                           formats.beside(main))  # fmt: skip
    assert list(bomb) == ["services/udp-192.0.2.1-80"]


@pytest.mark.parametrize(
    ("virtual", "line", "port"),
    [
        ("192.0.2.1 80", "lb_kind DR\n real_server 10.0.0.1 8080 {\n TCP_CHECK {\n }\n }", 8080),
        ("192.0.2.1 80", "lb_kind TUN\n real_server 10.0.0.1 8080 {\n HTTP_GET {\n url {\n path /\n }\n }\n }", 8080),
        ("192.0.2.1 80", "lb_kind DR\n real_server 10.0.0.1 8080 {\n TCP_CHECK {\n connect_port 81\n }\n }", 81),
        ("192.0.2.1 0", "lb_kind DR\n real_server 10.0.0.1 80 {\n TCP_CHECK {\n }\n }", 80),
        ("192.0.2.1 80", "lb_kind DR\n real_server 10.0.0.1 {\n TCP_CHECK {\n }\n }", None),
        ("192.0.2.1 80", "lb_kind NAT\n real_server 10.0.0.1 8080 {\n TCP_CHECK {\n }\n }", None),
        ("192.0.2.1 80", "lb_kind DR\n real_server 10.0.0.1 8080 {\n PING_CHECK {\n }\n }", None),
    ],
)
def test_a_check_goes_to_the_port_that_is_written_also_where_packets_do_not(
    virtual: str, line: str, port: int | None
) -> None:
    """As keepalived's own dump says: "RPORT = 80", "Dest = [10.0.0.1]:8080"."""
    documents, _ = formats.read(f"virtual_server {virtual} {{\n protocol TCP\n {line}\n}}\n", "keepalived")
    [document] = documents.values()
    assert document["check"].get("port") == port


@pytest.mark.parametrize("letter", ["\f", "\v", "\x1c", "\x85", "\u2028"])
def test_nothing_but_a_newline_ends_a_line(letter: str) -> None:
    """What stands in a comment stays in it."""
    text = GOOD.format(f"# off:{letter}real_server 10.0.0.9 80 {{{letter}}}", "", "")
    assert list(formats.read(text, "keepalived")[0][WEB]["backends"]) == ["10.0.0.1:80"]
    saved = f"-A -t 192.0.2.1:80 -s rr\n# off:{letter}-a -t 192.0.2.1:80 -r 10.0.0.9:80\n"
    assert formats.read(saved, "ipvsadm")[0][WEB]["backends"] == {}


def test_of_two_groups_with_one_name_the_first_counts() -> None:
    group = "virtual_server_group g {{\n 192.0.2.{} 80\n}}\n"
    text = group.format(1) + group.format(2) + "virtual_server group g {\n protocol TCP\n}\n"
    documents, notes = formats.read(text, "keepalived")
    assert list(documents) == [WEB]
    assert "second virtual_server_group g" in "\n".join(notes)


GOOD = "virtual_server 192.0.2.1 80 {{\n protocol TCP\n{}\n real_server 10.0.0.1 80 {{\n  weight 3\n{}\n }}\n}}\n{}\n"
WEB = "services/tcp-192.0.2.1-80"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("}", "expected no }: nothing is open"),
        ('x "open', "expected a closing quote"),
        ("router_id it's", "left out"),
        ("{", "expected a name before {"),
        ("include missing/*.conf", "not read"),
        ("$A=$A$A\n${A}", "expected definitions that do not grow"),
        ("frobnicate 1 2", "left out"),
        ("virtual_server nowhere 80 {\n}", "expected an IPv4 or IPv6 address, not 'nowhere'"),
        ("virtual_server group g {\n}", "expected the name of a virtual_server_group"),
    ],
)
def test_what_keepalived_passes_over_is_passed_over_and_told(line: str, told: str) -> None:
    """At the end of a good text, where keepalived goes on too."""
    documents, notes = formats.read(GOOD.format("", "", line), "keepalived")
    assert documents[WEB]["backends"]["10.0.0.1:80"]["weight"] == 3
    assert told in "\n".join(notes)


@pytest.mark.parametrize(
    "line",
    [
        "lb_kind FOO", "lb_algo foo", "persistence_timeout x", "quorum 0", "hysteresis -1",
        "sorry_server nowhere", "it's", "notify_up /bin/echo ${_PWD}", '"', "'", "protocol ICMP", "frobnicate",
    ],
)  # fmt: skip
def test_one_odd_line_of_a_virtual_server_costs_only_itself(line: str) -> None:
    documents, notes = formats.read(GOOD.format(line, "", ""), "keepalived")
    plain, _ = formats.read(GOOD.format("", "", ""), "keepalived")
    assert (documents, bool(notes)) == (plain, True)


@pytest.mark.parametrize(
    "line",
    [
        "weight -1", "uthreshold x", "lthreshold 9", "lvs_method nat", "TCP_CHECK {\n connect_port 0\n }",
        "TCP_CHECK {\n connect_timeout 0\n retry x\n connect_ip nowhere\n }", "MISC_CHECK {\n }", "FILE_CHECK {\n }",
    ],
)  # fmt: skip
def test_one_odd_line_of_a_real_server_costs_only_itself(line: str) -> None:
    documents, notes = formats.read(GOOD.format("", line, ""), "keepalived")
    assert documents[WEB]["backends"]["10.0.0.1:80"]["weight"] == 3
    assert notes


def test_no_gate_is_made_that_the_pool_cannot_open() -> None:
    documents, notes = formats.read(GOOD.format(" quorum 5\n hysteresis 2", "", ""), "keepalived")
    assert documents[WEB]["announce"] == {"min_backends": "weight 1", "reopen": "weight 3"}
    assert "line 3: quorum 5 is more than all servers weigh; 3 instead" in notes


@pytest.mark.parametrize(
    ("inside", "via", "told"),
    [
        ("connect_ip 192.0.2.1\n fwmark 7", "forward", "whose marks the node takes from fwmark_ranges"),
        ("connect_ip 192.0.2.1", None, "TCP_CHECK of the VIP 192.0.2.1: the server's own address is checked instead"),
        ("fwmark 7", None, "probes carry a mark only on the way by the VIP; left out"),
    ],
)
def test_a_check_of_the_vip_never_becomes_a_check_of_the_node_itself(inside: str, via: str | None, told: str) -> None:
    documents, notes = formats.read(GOOD.format("", f"TCP_CHECK {{\n {inside}\n }}", ""), "keepalived")
    check = documents[WEB]["check"]
    assert "address" not in check
    assert check.get("via") == via
    assert told in "\n".join(notes)


def test_a_text_that_is_no_keepalived_conf_is_refused() -> None:
    with pytest.raises(UnreadableInput, match=r"expected a keepalived\.conf"):
        formats.read("nothing\n", "keepalived")


def test_what_the_catalog_refuses_is_left_out_and_told() -> None:
    text = "-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r [fd00::1]:80 -g\n-A -t 192.0.2.2:80 -s rr\n"
    documents, notes = formats.read(text)
    assert list(documents) == ["services/tcp-192.0.2.2-80"]
    assert any(
        note.startswith("services/tcp-192.0.2.1-80 is left out: backends.[fd00::1]:80: expected") for note in notes
    )


@pytest.mark.parametrize("address", ["192.0.2.1", "127.0.0.1"])
def test_backends_that_were_the_balancer_itself_are_named(address: str) -> None:
    """Their checks would ask each node for itself, and not the machine that was meant."""
    real = f"real_server {address} 8080 {{\nTCP_CHECK {{\n}}\n}}\nreal_server 10.1.0.1 80 {{\n}}\n"
    keepalived = f"virtual_server 192.0.2.1 80 {{\nprotocol TCP\nlvs_method NAT\n{real}}}\n"
    saved = f"-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r {address}:8080 -m\n-a -t 192.0.2.1:80 -r 10.1.0.1:80 -m\n"
    for text in (keepalived, saved):
        documents, notes = formats.read(text)
        assert len(documents["services/tcp-192.0.2.1-80"]["backends"]) == 2
        named = f"services/tcp-192.0.2.1-80: {address}:8080 is the balancer itself"
        assert [note.startswith(named) for note in notes if "balancer" in note] == [True]


def test_backends_of_the_other_family_are_named() -> None:
    text = "-A -t [2001:db8::1]:80 -s rr\n-a -t [2001:db8::1]:80 -r [fd00::1]:80 -i\n"
    text += "-a -t [2001:db8::1]:80 -r 10.0.0.1:80 -i"
    documents, notes = formats.read(text)
    assert len(parsed(documents)) == 1
    assert [note for note in notes if "10.0.0.1:80 gets nothing" in note]


async def test_the_command_writes_a_dump_and_tells_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "saved"
    file.write_text(SAVED)
    code, out, err = await command("convert", str(file))
    assert code == 2, "something was left out"
    dump = json.loads(out)
    assert "services/tcp-192.0.2.10-80" in dump["catalog"]
    assert "note: line 9: --pe sip" in err
    (tmp_path / "dump.json").write_text(out)
    code, again, err = await command("convert", str(tmp_path / "dump.json"))
    assert (code, json.loads(again), err) == (0, dump, "")
    code, out, err = await command("validate", str(tmp_path / "dump.json"))
    assert (code, out.count(": fine")) == (0, len(dump["catalog"]))
    file.write_text("hello")
    code, out, err = await command("convert", str(file))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("Error: expected a dump (`anycastlb export`)")


@pytest.mark.parametrize(("vips", "servers"), [(1, 5_000), (600, 200)])
def test_what_is_too_large_for_one_document_has_a_key_for_each_backend(vips: int, servers: int) -> None:
    """Too many values, or more destinations than one document may ask for."""
    group = "".join(f" 192.0.{number // 200}.{number % 200 + 1} 80\n" for number in range(vips))
    reals = "".join(
        f"real_server 10.1.{number // 250}.{number % 250 + 1} 80 {{\n weight {number % 90 + 1}\n TCP_CHECK\n}}\n"
        for number in range(servers)
    )
    conf = f"virtual_server_group all {{\n{group}}}\nvirtual_server group all {{\nprotocol TCP\n{reals}}}\n"
    documents, notes = formats.read(conf)
    assert notes == [] and len(documents) == 1 + servers
    (service,) = parsed(documents).values()
    assert len(service.vips) == vips
    weights = {str(backend.address): backend.weight for backend in service.backends}
    assert weights == {f"10.1.{n // 250}.{n % 250 + 1}": n % 90 + 1 for n in range(servers)}
    assert {backend.check.type for backend in service.backends} == {"tcp"}


def test_what_the_store_would_not_take_has_a_key_for_each_backend_too() -> None:
    reals = "".join(
        f"real_server 10.1.{n // 250}.{n % 250 + 1} 80 {{\n HTTP_GET {{\n url {{\n path /{'x' * 500}{n}\n }}\n }}\n}}\n"
        for n in range(700)
    )
    documents, notes = formats.read(f"virtual_server 192.0.2.1 80 {{\nprotocol TCP\n{reals}}}\n")
    assert notes == [] and len(documents) == 701
    assert all(len(json.dumps(document)) < MAX_DOCUMENT for document in documents.values())
    (service,) = parsed(documents).values()
    assert len({backend.check for backend in service.backends}) == 700
