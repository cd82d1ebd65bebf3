"""From weights to something that may serve: engines, self-test, registry. Never imports daemon."""
