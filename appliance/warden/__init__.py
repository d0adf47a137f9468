"""The warden: a node's only voice to the network, only writer of its store, and keeper of its rules."""
