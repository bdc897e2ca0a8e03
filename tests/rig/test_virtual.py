"""Debian 13's own kernel under QEMU: how a command runs on it, and that IPVS does there what it does elsewhere.

The kernel is booted once, for the tests of ``tests/kernel`` whose outcome a kernel decides and that take least where a
processor has to be emulated. ``make test-kernels`` runs all of them, on Debian 12's kernel too. Nothing here has a
time-out: under emulation, on a busy machine, a test may take any time.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.rig import testkernel
from tests.rig.require import require

NAME = "debian-13"
ROWS = [
    *("mh flags", "gue", "gre", "thresholds", "weight 0", "udp, one packet", "sctp", "fwmark v6"),
    *("v4 to v6", "v6 to v4", "persistence v6", "every port"),
]
SAMPLE = {
    "tests/kernel/test_ipvs.py": [
        *(f"test_the_kernel_holds_what_ipvsadm_would_have_made_of_it[{row}]" for row in ROWS),
        "test_what_is_not_ours_is_neither_seen_nor_touched",
        "test_a_new_service_whose_scheduler_is_missing_leaves_nothing_behind",
        "test_more_destinations_than_mh_can_hold_is_a_failure_of_the_service",
        "test_mixed_families_need_a_tunnel_and_the_reason_says_so",
        "test_lost_answers_are_made_up_for_by_a_look",
    ],
    "tests/kernel/test_maglev.py": [
        "test_every_flow_goes_where_the_model_says[4-three of different weight-fallback]",
        "test_every_flow_goes_where_the_model_says[6-one down-fallback]",
    ],
    "tests/kernel/test_addresses.py": [
        "test_a_vip_is_a_labelled_host_address_usable_at_once",
        "test_an_address_without_our_mark_is_left_alone[2001:db8::10]",
    ],
}
"""File -> tests of it."""


def test_the_driver_does_on_it_what_it_does_elsewhere(tmp_path: Path) -> None:
    release = require(NAME)
    tests = [f"{file}::{test}" for file, names in SAMPLE.items() for test in names]
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    script = f'uname -r >{tmp_path}/release; nproc; echo "$TESTKERNEL" >&2; "$@"; exit $((40 + $?))'
    run = [sys.executable, testkernel.__file__, "run", "--kernel", NAME, "--", "sh", "-c", script, "sh"]
    done = subprocess.run([*run, *pytest, *tests], check=False, capture_output=True, text=True)
    said = f"on {NAME}'s kernel:\n{done.stdout}\n{done.stderr}"
    assert done.returncode == 40, said
    assert f"{len(tests)} passed" in done.stdout, said
    assert done.stdout.startswith("2\n"), "the number of processors"
    assert NAME in done.stderr.splitlines(), said  # what it fetched before, it says as well
    assert (tmp_path / "release").read_text() == release + "\n"
