"""The demo: four real hospitals, one model, the real parts."""
