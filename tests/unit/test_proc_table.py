from ipaddress import ip_address

import pytest

from anycastlb.adapters.drivers.ipvs.proc_table import ProcTable, blocks, label, without_connections
from anycastlb.core.model import ServiceKey

TEXT = b"".join(
    line + b"  \n"
    for line in (
        b"IP Virtual Server version 1.2.1 (size=4096)",
        b"Prot LocalAddress:Port Scheduler Flags",
        b"  -> RemoteAddress:Port Forward Weight ActiveConn InActConn",
        b"TCP  C000020A:0050 mh",
        b"  -> 0A000002:0050      Route   10     0          0",
        b"  -> 0A000001:0050      Tunnel  10     1          22",
        b"SCTP  [2001:0db8:0000:0000:0000:0000:0000:0010]:0050 rr persistent 60 FFFFFFFF",
        b"  -> [2001:0db8:0001:0000:0000:0000:0000:0001]:0050      Masq    1      0          0",
        b"FWM  0000000A rr",
        b"  -> 0A000001:0050      Route   10     0          0",
        b"FWM  0000000A wrr",
    )
)


@pytest.mark.parametrize(
    ("protocol", "address", "port", "lines"),
    [("tcp", "192.0.2.10", 80, 3), ("sctp", "2001:db8::10", 80, 2), ("fwmark", "0.0.0.0", 10, 3), ("udp", "::1", 1, 0)],
)
def test_each_service_has_its_part(protocol: str, address: str, port: int, lines: int) -> None:
    part = blocks(TEXT).get(label(ServiceKey(protocol, ip_address(address), port)), b"")  # type: ignore[arg-type]
    assert len([line for line in part.replace(b"FWM", b"\nFWM").splitlines() if line]) == lines


def test_a_part_without_its_connections_is_the_same_whatever_they_are() -> None:
    (part,) = (part for name, part in blocks(TEXT).items() if name.startswith(b"TCP"))
    busy = part.replace(b" 22", b" 4444").replace(b" 0          0", b" 123        45678")
    assert busy != part
    assert without_connections(busy) == without_connections(part)
    assert without_connections(busy.replace(b"Route   10 ", b"Route   11 ")) != without_connections(part)
    assert without_connections(busy.replace(b"Route  ", b"Tunnel ")) != without_connections(part)


def test_a_table_that_is_not_open_shows_nothing() -> None:
    assert ProcTable().read() is None
