"""The queue a business uploads tagged notifications to."""
