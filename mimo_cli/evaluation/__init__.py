"""How well a model does its tasks, predicts text and agrees with another: the measures behind `mimo eval`."""
