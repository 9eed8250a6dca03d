"""Makers of training and held-out samples; each is a pure function of a random generator."""
