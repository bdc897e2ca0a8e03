"""``python -m anycastlb.engine.checker FD``: started by the daemon, with its socket."""

import sys

from anycastlb.engine.checker.process import main

main(int(sys.argv[1]))
