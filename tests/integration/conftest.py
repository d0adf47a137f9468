"""What all integration tests may ask for."""

from tests.hospitals import federation, hospitals

__all__ = ["federation", "hospitals"]
