"""What training minimises: each loss maps `(pred, target)` to (B,), and an `Objective` adds them up."""
