"""Pictures of a two-dimensional input box: what is computed, and how it is drawn."""
