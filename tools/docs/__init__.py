"""Makes the pictures of the nodes' help pages."""
