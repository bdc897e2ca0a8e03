"""One part of ours at a time, against the real thing it talks to: Consul, ExaBGP, name servers, web servers."""
