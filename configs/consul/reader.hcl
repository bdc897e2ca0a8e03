# Who may look: dashboards, audits. Documents hold no secrets, but the addresses of all backends.
#
#     consul acl policy create -name anycastlb-reader -rules @reader.hcl

key_prefix "anycastlb/" {
  policy = "read"
}
