"""Pictures of what a run learned, from plain arrays. Made without pyplot, so nothing global is touched."""
