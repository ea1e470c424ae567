"""Speed side by side: cases -> JSON -> table. Measured through the public API, as a user would call it."""
