"""Networks for where neither this package nor torch is."""
