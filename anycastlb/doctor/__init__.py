"""The doctor finds what keeps this machine from being a good node, with the evidence and the command that fixes it.

Collecting and judging are separate: ``collect`` gathers the facts of the machine into a frozen ``Facts``, and the pure
``rules`` turn facts into findings. The daemon uses the same rules when it starts (``preflight``) and when a catalog
asks something new of the machine. The doctor changes nothing, loads no kernel module, and needs neither a running node
nor root; what it was not allowed to see is a finding too.
"""

from anycastlb.doctor.collect import collect
from anycastlb.doctor.diagnosis import diagnose
from anycastlb.doctor.facts import Facts
from anycastlb.doctor.finding import Finding

__all__ = ["Facts", "Finding", "collect", "diagnose"]
