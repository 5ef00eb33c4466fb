"""Weight files: what is known of them, where they lie, and how they get into a network."""
