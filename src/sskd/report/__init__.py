"""Reports of finished, running and broken runs. Read from files alone; nothing here imports torch."""
