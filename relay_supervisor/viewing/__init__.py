"""Who watches: views of published cameras, and what guests are told."""
