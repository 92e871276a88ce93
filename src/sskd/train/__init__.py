"""The one loop that runs every method."""
