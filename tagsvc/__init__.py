"""Tags, aliases, combinations and the tag -> client mapping as immutable snapshots. Its place is kept; nothing is here yet."""
