"""From a problem to a formula: terms, the two encodings, and what prints them."""
