"""The words that everything else speaks: errors, configurations, the travelling state, precision."""
