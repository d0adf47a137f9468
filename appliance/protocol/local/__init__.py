"""The messages between a node's own processes, over Unix sockets."""
