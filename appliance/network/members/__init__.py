"""The membership register as the network host holds it, and who a caller is."""
