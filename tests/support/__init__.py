"""What tests of every kind share: worlds, servers, snapshots, virtual time. Nothing here is a test."""
