# A node of anycastlb: it reads the catalog and publishes its own status. One token for each node.
#
#     consul acl policy create -name anycastlb-node -rules @node.hcl
#     consul acl token create -description "anycastlb on lb1" -policy-name anycastlb-node
#
# Its status tells the others whether it is there and what it sees: whoever has this token can lie about that, and can
# register services whose names begin with "anycastlb-". It cannot change a service, a default or a drain: so writes
# through the node's API, page and commands are refused by Consul. To allow them, give the token operator.hcl too.

key_prefix "anycastlb/" {
  policy = "read"
}

# What nodes know of each other, held by a session of the agent the node talks to.
key_prefix "anycastlb/nodes/" {
  policy = "write"
}
session_prefix "" {
  policy = "write"
}

# Backends from Consul services ("backends_from"). Restrict it to the services you use.
service_prefix "" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}

# VIPs registered as Consul services, while they are announced.
service_prefix "anycastlb-" {
  policy = "write"
}
agent_prefix "" {
  policy = "read"
}
