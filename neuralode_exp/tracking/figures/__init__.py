"""Pictures of what a run learned, from plain arrays. They are made without pyplot, which has global state."""
