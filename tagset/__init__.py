"""The pure tag algebra: expressions over bitmaps of clients, and the immutable snapshots that they are evaluated against."""
