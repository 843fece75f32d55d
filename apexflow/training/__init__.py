"""What reads the store to learn: folds, metrics, reference models."""
