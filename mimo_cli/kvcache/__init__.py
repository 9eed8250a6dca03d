"""Keys and values of past tokens: a growing buffer for global layers, a sliding one for window layers."""
