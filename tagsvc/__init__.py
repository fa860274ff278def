"""tagsvc: tags, aliases, combinations and the tag -> client mapping as immutable snapshots; who is meant by an expression."""
