"""What a user writes: frozen models of the manifest, and the loader that keeps every line and column."""
