"""anycastlb: a clustered layer-4 load balancer from Consul KV, IPVS and BGP host routes."""

__version__ = "0.1.0"
