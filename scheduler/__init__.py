"""The queue a business uploads tagged notifications to. Its place is kept; nothing is here yet."""
