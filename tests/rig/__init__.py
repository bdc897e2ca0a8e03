"""What the tests need from a machine: a kernel with IPVS, a Consul server, and the set-up of both."""
