"""The networks, all with one output (`output`), built by `card` from `settings`."""
