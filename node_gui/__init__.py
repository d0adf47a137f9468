"""The hospital's browser GUI: writes through the warden's governance socket, reads without the right to write."""
