"""The zone's primary name server: questions and dynamic updates, signed with TSIG, by TCP.

An answer counts only if it is signed too, and what refuses us is said in words an operator can act on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.tsig

from anycastlb.adapters.system.cancellation import cancellable
from anycastlb.core.model import DriverError
from anycastlb.settings import DnsSettings

ATTEMPT = 5.0
"""Seconds a server has for one answer."""
UNMET = {dns.rcode.YXDOMAIN, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.NXRRSET}
"""A prerequisite did not hold."""
UNSIGNED = (
    "its answer is not signed, so it may be anybody's; expected the primary server of dns.zone, one that knows our key"
)
NO_TSIG = "requires a TSIG"
"""In the exception for an answer that is not signed: a plain ``FormError``, as for malformed ones, without a field that
says which. Dnspython has no type of its own for it; its older releases return such an answer."""
MEANT: Mapping[int, str] = {
    dns.rcode.REFUSED: "REFUSED: expected a server that lets this key query and update the zone (allow-update or "
    "update-policy in BIND, an acl with action update in Knot)",
    dns.rcode.NOTAUTH: "NOTAUTH: expected the primary server of the zone, and a key it knows",
    dns.rcode.NOTZONE: "NOTZONE: the name does not lie in dns.zone",
    dns.rcode.NOTIMP: "NOTIMP: expected a server that takes dynamic updates",
    dns.rcode.SERVFAIL: "SERVFAIL: the server could not do it; see its log",
}


class ZoneServer:
    """``attempt``: seconds for one answer."""

    def __init__(self, settings: DnsSettings, attempt: float = ATTEMPT) -> None:
        assert settings.server and settings.zone
        self._server, self._port, self._attempt = settings.server, settings.port, attempt
        port = f" port {settings.port}" if settings.port != 53 else ""
        self.where = f"DNS zone {settings.zone} at {settings.server}{port}"

    async def ask(self, name: str, kind: str, key: dns.tsig.Key) -> tuple[list[Any], int]:
        """The records of one type at one name, and their time to live."""
        asked = dns.name.from_text(name)
        query = dns.message.make_query(asked, kind)
        query.flags &= ~dns.flags.RD
        query.use_tsig(key)
        response = await self.exchange(query, key)
        rcode = response.rcode()
        if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise self._fault(MEANT.get(rcode, dns.rcode.to_text(rcode)))
        if not response.flags & dns.flags.AA:
            raise self._fault("it is no authority for the zone; expected the zone's primary server")
        records = response.get_rrset(response.answer, asked, dns.rdataclass.IN, dns.rdatatype.from_text(kind))
        return (list(records), records.ttl) if records else ([], 0)

    async def exchange(self, message: dns.message.Message, key: dns.tsig.Key) -> dns.message.Message:
        """The answer to a signed message, by TCP: nothing is truncated, and nothing done twice."""
        try:
            answer = await cancellable(dns.asyncquery.tcp(message, self._server, self._attempt, self._port))
        except dns.exception.Timeout as exc:
            raise self._fault(f"no answer within {self._attempt:g} s; expected a name server there") from exc
        except (dns.tsig.PeerBadKey, dns.message.UnknownTSIGKey) as exc:
            raise self._fault(f"BADKEY: it does not know the key {_name(key)}, or lets it do nothing here") from exc
        except (dns.tsig.PeerBadSignature, dns.tsig.BadSignature) as exc:
            raise self._fault(f"BADSIG: it has another secret for the key {_name(key)}") from exc
        except (dns.tsig.PeerBadTime, dns.tsig.BadTime) as exc:
            raise self._fault("BADTIME: its clock and ours differ by more than 5 minutes; set them") from exc
        except (dns.exception.DNSException, OSError, EOFError, ValueError) as exc:
            if NO_TSIG in str(exc):
                raise self._fault(UNSIGNED) from exc
            cause = " ".join(str(exc).split()) or type(exc).__name__
            raise self._fault(f"{cause:.200}; expected a name server there") from exc
        if not answer.had_tsig and answer.rcode() in (dns.rcode.NOERROR, *UNMET):
            raise self._fault(UNSIGNED)
        return answer

    def _fault(self, what: str) -> DriverError:
        return DriverError(f"{self.where}: {what}")


def _name(key: dns.tsig.Key) -> str:
    return str(key.name.to_text(omit_final_dot=True))
