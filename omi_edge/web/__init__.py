"""HTTP API, event stream and page."""
