"""The pure tag algebra: parse, canonicalise and evaluate expressions over bitmaps. Its place is kept; nothing is here yet."""
