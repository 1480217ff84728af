"""What contributors run: the notebook builder, the badges, the launcher."""
