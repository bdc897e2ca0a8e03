# Who may change the catalog: people, deployment tools, and nodes whose API shall be able to write. Whoever has this
# token can send the traffic of every VIP anywhere, within what each node's vip_ranges allow.
#
#     consul acl policy create -name anycastlb-operator -rules @operator.hcl

key_prefix "anycastlb/" {
  policy = "write"
}
# The status of the nodes is theirs.
key_prefix "anycastlb/nodes/" {
  policy = "read"
}
# Locks, of drains for example.
session_prefix "" {
  policy = "write"
}
