"""Container images: locks, wheels, builds, bills of materials, and the folder of artifacts that hosts start from."""
