"""A study: a grid of evaluations, run as cheaply as it can be, and what is compared in it."""
