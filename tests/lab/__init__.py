"""The lab: a two-node anycast cluster on one kernel, in network namespaces, for the demo and the e2e tests.

A client, a top-of-rack router (BIRD 2, ECMP), two nodes (each with its own anycastlb, ExaBGP and IPVS), three
backends and one Consul server. Everything in it is real but the cables. It needs root and a kernel with IPVS.
"""
