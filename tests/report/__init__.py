"""What networks cost, how fast they are, and the pages and pictures of it."""
