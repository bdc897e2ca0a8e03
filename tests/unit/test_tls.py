"""Certificates are verified in one way wherever we speak TLS, whatever Python would do by itself."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from anycastlb import settings
from anycastlb.adapters.checks.probe.tls import Contexts
from anycastlb.adapters.consul.credentials import Credentials
from anycastlb.client.transport import security
from anycastlb.core.certificates import VERIFY_FLAGS
from anycastlb.serving.api.http import tls
from tests.support.authority import Authority, server_context

NAME = "lb1.example.org"
Place = Callable[[Path, Path], ssl.SSLContext]
"""A context of the product's that trusts the first file; the second is a certificate of its own."""


def a_check(ca: Path, own: Path) -> ssl.SSLContext:
    return Contexts().get(True, str(ca))


def the_client_library(ca: Path, own: Path) -> ssl.SSLContext:
    context = security(str(ca), None, None)
    assert context is not None
    return context


def the_consul_client(ca: Path, own: Path) -> ssl.SSLContext:
    text = f'[node]\nvip_ranges = ["192.0.2.0/24"]\n[consul]\naddress = "https://127.0.0.1:8501"\nca_file = "{ca}"'
    context = Credentials(settings.parse(text).consul).tls()
    assert context is not None
    return context


def the_api(ca: Path, own: Path) -> ssl.SSLContext:
    text = f'[node]\nvip_ranges = ["192.0.2.0/24"]\n[api]\ntls_cert_file = "{own}"\ntls_client_ca_file = "{ca}"'
    return tls.load(settings.parse(text).api)


PLACES = [a_check, the_client_library, the_consul_client, the_api]


def handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """Both sides in memory. Raises what either side refuses the other for."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname=NAME), server.wrap_bio(up, down, server_side=True)]
    for _ in range(4):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    ends[1].getpeercert()  # raises unless the handshake is done


def verified(place: Place, ca: Path, theirs: Path, own: Path) -> None:
    """The product's context meets a peer with that certificate. Raises ``ssl.SSLCertVerificationError``."""
    ours = place(ca, own)
    if place is the_api:
        anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        anybody.load_cert_chain(theirs)
        handshake(anybody, ours)
    else:
        handshake(ours, server_context(theirs))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("identified", [True, False], ids=["with key identifiers", "without key identifiers"])
def test_certificates_with_and_without_key_identifiers_are_verified(
    place: Place, identified: bool, tmp_path: Path
) -> None:
    authority, foreign = Authority(tmp_path, "Ours", identified), Authority(tmp_path, "Foreign", identified)
    own = authority.issue(NAME)
    verified(place, authority.file, authority.issue(NAME), own)
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer certificate"):
        verified(place, authority.file, foreign.issue(NAME), own)


@pytest.mark.parametrize("place", PLACES)
def test_an_intermediate_authority_alone_is_no_end_of_a_chain(place: Place, tmp_path: Path) -> None:
    root = Authority(tmp_path, "Root", identified=True)
    below = root.intermediate("Below")
    theirs = below.issue(NAME)
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get issuer certificate"):
        verified(place, below.file, theirs, theirs)
    both = tmp_path / "both.pem"
    both.write_bytes(root.file.read_bytes() + below.file.read_bytes())
    verified(place, both, theirs, theirs)


@pytest.mark.parametrize("place", PLACES)
def test_every_context_has_the_same_flags(place: Place, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    assert place(authority.file, authority.issue(NAME)).verify_flags == VERIFY_FLAGS
