"""Grids of trainings: recipes, engines that run them, and the tables that they come to."""
