"""What is wrong with this machine as a node, with the evidence and the command that mends it.

Looking and judging are apart: ``look`` gathers a frozen ``Facts`` (``seen_*``), pure functions make findings of it
(``kernel``, ``network``, ``speaker``, ``store``). It changes nothing, loads nothing, needs no running node and no
privilege; what it could not see is a finding too.
"""

from anycastlb.doctor.collect import collect
from anycastlb.doctor.diagnosis import diagnose
from anycastlb.doctor.facts import Facts
from anycastlb.doctor.finding import Finding

__all__ = ["Facts", "Finding", "collect", "diagnose"]
