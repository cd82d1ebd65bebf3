"""The review page: what a person looks at, and what their words change."""
