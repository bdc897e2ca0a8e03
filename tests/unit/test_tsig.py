"""Key files in every form that name servers' tools write, and what is said of bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from anycastlb.adapters.drivers.names import tsig
from anycastlb.core.model import DriverError

SECRET = "c2VjcmV0IG9mIHRoZSB0ZXN0"
GOOD = {
    "tsig-keygen": f'key "lb.key" {{\n\talgorithm hmac-sha512;\n\tsecret "{SECRET}";\n}};\n',
    "by hand": f"// of ours\nkey lb.key {{ secret {SECRET}; algorithm hmac-sha512; }}; # end\n",
    "keymgr": f"# hmac-sha512:x:y\nkey:\n  - id: lb.key\n    algorithm: hmac-sha512\n    secret: {SECRET}\n",
    "dig": f"hmac-sha512:lb.key:{SECRET}\n",
    "one line": f"lb.key HMAC-SHA512 {SECRET}\n",
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_a_key_in_every_form(text: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(text)
    key = tsig.read(tmp_path / "key")
    assert (key.name.to_text(), key.secret) == ("lb.key.", b"secret of the test")
    assert key.algorithm.to_text() == "hmac-sha512."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no key in it; expected one key as tsig-keygen writes it"),
        (GOOD["tsig-keygen"] * 2, "2 keys in it"),
        (f"lb.key hmac-sha9 {SECRET}", "unknown algorithm 'hmac-sha9'"),
        (f"lb.key hmac-sha256 {SECRET}!", "the secret is no base64"),
        (f"lb..key hmac-sha256 {SECRET}", "is no domain name"),
        (f'key "x" {{ secret "{SECRET}"; }};', "expected one key"),
    ],
)
def test_a_bad_file_is_told_without_its_secret(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(DriverError, match=expected) as caught:
        tsig.read(tmp_path / "key")
    assert SECRET not in str(caught.value) and "dns.tsig_key_file" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match=r"No such file.*expected one key"):
        tsig.read(tmp_path / "key")
