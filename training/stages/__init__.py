"""The stages of the recipe, in the order they are run."""
