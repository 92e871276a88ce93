"""Studies: one thing varied in a grid, everything else held; cells are shared by all studies of one base recipe."""
